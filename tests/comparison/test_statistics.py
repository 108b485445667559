"""Means, t intervals and paired differences, against scipy.stats."""

import numpy as np
import pytest
from scipy import stats

from vae_exp.comparison.statistics import difference, interval


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(-100, 3, count)
    found = interval(list(values))
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-12)
    assert found.n == count


def test_the_interval_covers_in_nineteen_of_twenty_cases():
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    hits = sum(abs(found.mean) < found.half for found in (interval(list(row)) for row in draws))
    assert hits / 2000 == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / 2000) ** 0.5)


def test_one_number_has_no_interval_and_none_no_mean():
    assert interval([3.0]) == (3.0, None, 1)
    assert interval([]) is None


def test_a_difference_is_that_of_the_seeds_of_both():
    noise = np.random.default_rng(1)
    common = noise.normal(0, 10, 6)
    one = dict(zip(range(6), common + noise.normal(0.5, 0.1, 6), strict=True))
    other = dict(zip(range(1, 7), [*common[1:], 1e6], strict=True))
    found = difference(one, other)
    paired = stats.ttest_rel([one[s] for s in range(1, 6)], [other[s] for s in range(1, 6)])
    low, high = paired.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9)
    assert found.n == 5
    assert difference({0: 1.0}, {1: 2.0}) is None
