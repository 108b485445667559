"""Means over seeds with their t intervals, and differences of runs that share a seed."""

from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from typing import Any, NamedTuple

__all__ = ["Interval", "difference", "interval"]

LEVEL = 0.95


class Interval(NamedTuple):
    """The mean of n numbers, and half the width of its 95 % interval, None for a single number."""

    mean: float
    half: float | None
    n: int


def interval(values: Sequence[float]) -> Interval | None:
    """The mean of some numbers with its 95 % t interval (Student, 1908); None for none.

    It takes the numbers as independent draws from a normal distribution, such as one run for each of several seeds.

    Arguments:
        values: The numbers, `(N,)`, finite.
    """
    count = len(values)
    if count == 0:
        return None
    mean = fsum(values) / count
    if count == 1:
        return Interval(mean, None, 1)
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes a second to import

    variance = fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Interval(mean, float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * sqrt(variance / count), count)


def difference(one: Mapping[Any, float], other: Mapping[Any, float]) -> Interval | None:
    """The mean of `one - other` over the seeds, and folds, of both, with its 95 % interval; None if they share no seed.

    Runs of one seed share the order of images and noise, so the interval is often shorter than those of the two means.

    Arguments:
        one: A number for each seed.
        other: Likewise.
    """
    return interval([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
