"""Schedules: numbers that change with the training step; they can replace any number of an objective, and `lr`.

They are functions of the step without a state: evaluation does not advance them, a resumed run continues them, and a
captured step, whose step is a tensor on the device, follows them. Cyclical: arXiv:1903.10145.
"""

from math import inf

import torch
from torch import Tensor

__all__ = ["Constant", "Cyclical", "Exponential", "Linear", "Number", "Schedule", "at", "check", "ends"]


class Schedule:
    """A number that is a function of the step. A plain function of the step is one, too.

    Attributes:
        ends: The values that all others lie between, which are checked; empty if they are not known.
    """

    ends: tuple[float, ...] = ()

    def __call__(self, step: Tensor | int) -> Tensor | float:
        """The value at a step, counted from 0; a 0-d tensor if the step is a tensor."""
        raise NotImplementedError


Number = float | Schedule


def at(number: Number, step: Tensor | int) -> Tensor | float:
    """A number at a step, whether it is scheduled or not."""
    return number(step) if callable(number) else number


def check(key: str, number: Number, low: float = 0.0, high: float = inf) -> Number:
    """Returns the number.

    Raises:
        ValueError: If it is outside `[low, high]`, or a schedule that starts or ends outside; the message names the
            key.
    """
    for value in ends(number):
        if not low <= value <= high:
            above = f" and at most {high:g}" if high < inf else ""
            raise ValueError(f"{key}={value}: a number of at least {low:g}{above} is needed")
    return number


def ends(number: Number) -> tuple[float, ...]:
    """The values that a schedule lies between, see `Schedule`; a number that is not scheduled is all of them."""
    if isinstance(number, Schedule):
        return number.ends
    return () if callable(number) else (number,)


class Constant(Schedule):
    """The same at every step.

    Arguments:
        value: The number.
    """

    def __init__(self, value: float) -> None:
        self.value = value
        self.ends = (value,)

    def __call__(self, step: Tensor | int) -> float:
        """The value."""
        return self.value


class Linear(Schedule):
    """From `start` to `end` in `steps` steps, by equal amounts; `end` after that.

    Arguments:
        start: The value at step 0.
        end: The value at step `steps` and after it.
        steps: Number of steps from `start` to `end`.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.start, self.end, self.steps = start, end, _check_steps("steps", steps)
        self.ends = (start, end)

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step."""
        return self.start + (self.end - self.start) * _share(step, self.steps)


class Cyclical(Schedule):
    """From `start` to `end` in each period (Fu et al., 2019): a rise in the first part of the period, then constant.

    Arguments:
        start: The value at the start of each period.
        end: The value at the end of the rise, kept to the end of the period.
        period: Steps from one start to the next.
        rise: The share of the period in which the value goes from `start` to `end`.
    """

    def __init__(self, start: float, end: float, period: int, rise: float = 0.5) -> None:
        if not 0 < rise <= 1:
            raise ValueError(
                f"rise={rise} of a cyclical schedule: a share of the period is needed, above 0 and up to 1"
            )
        self.start, self.end, self.period, self.rise = start, end, _check_steps("period", period), rise
        self.ends = (start, end)

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step."""
        return self.start + (self.end - self.start) * _share(step % self.period, self.rise * self.period)


class Exponential(Schedule):
    """From `start` to `end` in `steps` steps, by equal factors; `end` after that.

    Arguments:
        start: The value at step 0, not 0.
        end: The value at step `steps` and after it, of the same sign.
        steps: Number of steps from `start` to `end`.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        if start * end <= 0:
            raise ValueError(
                f"start={start}, end={end} of an exponential schedule: neither may be 0 and both need the same sign"
            )
        self.start, self.end, self.steps = start, end, _check_steps("steps", steps)
        self.ends = (start, end)

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step."""
        return self.start * (self.end / self.start) ** _share(step, self.steps)


def _check_steps(name: str, steps: int) -> int:
    if steps < 1:
        raise ValueError(f"{name}={steps} of a schedule: at least one step is needed")
    return steps


def _share(step: Tensor | int, steps: float) -> Tensor:
    return (torch.as_tensor(step) / steps).clamp(max=1)
