"""Schedules: numbers that change with the training step; they can replace any number of an objective, and `lr`.

They are functions of the step without a state: evaluation does not advance them, a resumed run continues them, and a
captured step, whose step is a tensor on the device, follows them. Cyclical: arXiv:1903.10145.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf

import torch
from torch import Tensor

__all__ = [
    "Constant",
    "Cyclical",
    "Exponential",
    "Linear",
    "Number",
    "Piecewise",
    "Schedule",
    "Warmup",
    "at",
    "check",
    "ends",
]


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


class Piecewise(Schedule):
    """Values one after the other, each from a step on, as the learning rate of Burda et al. (2016).

    Arguments:
        values: The numbers.
        at_steps: Steps from which on the second value holds, the third, ...; rising, one less than there are values.
    """

    def __init__(self, values: Sequence[float], at_steps: Sequence[int]) -> None:
        if len(values) != len(at_steps) + 1:
            raise ValueError(
                f"values={list(values)}, at_steps={list(at_steps)} of a piecewise schedule: {len(values)} values need "
                f"{max(0, len(values) - 1)} steps from which on the next one holds"
            )
        if any(first >= second for first, second in pairwise([0, *at_steps])):
            raise ValueError(
                f"at_steps={list(at_steps)} of a piecewise schedule: steps that rise, from 1 on, are needed"
            )
        self.values, self.at_steps = values, at_steps
        self.ends = tuple(values)

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step."""
        at_step = torch.as_tensor(step)
        value = torch.full_like(at_step, self.values[0], dtype=torch.get_default_dtype())
        for start, number in zip(self.at_steps, self.values[1:], strict=True):
            value = torch.where(at_step >= start, number, value)
        return value


class Warmup(Schedule):
    """A share of a number that rises by equal amounts, `(step + 1) / steps`, to all of it.

    Arguments:
        steps: Steps to the whole number.
        then: The number; may be a schedule, which counts from step 0, too.
    """

    def __init__(self, steps: int, then: Number) -> None:
        self.steps, self.then = _check_steps("steps", steps), then
        self.ends = (0.0, *ends(then))

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step."""
        return at(self.then, step) * _share(torch.as_tensor(step) + 1, self.steps)


def _check_steps(name: str, steps: int) -> int:
    if steps < 1:
        raise ValueError(f"{name}={steps} of a schedule: at least one step is needed")
    return steps


def _share(step: Tensor | int, steps: float) -> Tensor:
    return (torch.as_tensor(step) / steps).clamp(max=1)
