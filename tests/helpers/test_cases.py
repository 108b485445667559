"""The cover of pairs (helpers/cases.py) against every row of the grid."""

from itertools import combinations, product

import pytest
from helpers.cases import cover

COLUMNS = {"a": "123", "b": "xyz", "c": "pq", "d": "stuv"}


def every(row):
    return True


def two_rules(row):
    """Of which the pair a=2, d=t breaks neither, and fits in no row."""
    return not (row.get("a") == "2" and row.get("c") == "p") and not (row.get("c") == "q" and row.get("d") == "t")


@pytest.mark.parametrize("of", [None, "a", "d"])
@pytest.mark.parametrize("fits", [every, two_rules])
def test_every_pair_that_can_meet_meets_and_the_others_are_told(fits, of):
    grid = [dict(zip(COLUMNS, values, strict=True)) for values in product(*COLUMNS.values())]
    rows, apart = cover(COLUMNS, fits, of)
    assert all(row in grid and fits(row) for row in rows)

    def pairs(rows):
        held = {pair for row in rows for pair in combinations(row.items(), 2)}
        return {pair for pair in held if of in (None, *dict(pair))}

    assert pairs(rows) == pairs([row for row in grid if fits(row)])
    assert set(apart) == pairs(grid) - pairs(rows)
    assert len(apart) == len(set(apart))
    assert ((("a", "2"), ("d", "t")) in apart) == (fits is two_rules and of in (None, "a", "d"))
    assert len(rows) < len(grid) / 3
    assert cover(COLUMNS, fits, of) == (rows, apart)
