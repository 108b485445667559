"""Cases of a test: every pair of values instead of every combination, and which of them are slow.

Most faults of options show when two of them meet (Kuhn, Wallace & Gallo, 2004).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest

Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]


def slow_but(fast: Sequence[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases of a parametrization, all but those in `fast` marked as slow; a tuple is several values."""
    cases = list(cases)
    assert all(case in cases for case in fast)
    slow = (case if isinstance(case, tuple) else (case,) for case in cases if case not in fast)
    return [*fast, *(pytest.param(*case, marks=pytest.mark.slow) for case in slow)]


def cover(
    columns: Mapping[str, Sequence[str]], fits: Callable[[Row], object] = lambda row: True, of: str | None = None
) -> tuple[list[Row], list[Pair]]:
    """Rows that fit, in which all pairs of values meet that can; found greedily, the same ones every time.

    Arguments:
        columns: The values of each.
        fits: Whether the values of a row go together. It is given unfinished rows, too, and judges what is there.
        of: The column that a pair must have a value of; by default pairs of every two columns are held.

    Returns:
        The rows, and the pairs that no row that fits can hold.
    """
    left = {
        ((a, x), (b, y)): None
        for a, b in combinations(columns, 2)
        if of in (None, a, b)
        for x in columns[a]
        for y in columns[b]
    }
    rows, apart = [], []
    while left:
        pair = next(iter(left))
        row = _complete(dict(pair), columns, fits, left)
        if row is None:
            apart.append(pair)
            del left[pair]
        else:
            rows.append(row)
            for held in combinations(row.items(), 2):
                left.pop(held, None)
    return rows, apart


def _complete(row: Row, columns: Mapping[str, Sequence[str]], fits: Callable[[Row], object], left: dict) -> Row | None:
    """A row with the values of `row` that fits, with as many pairs of `left` as come by choosing one after another."""
    if not fits(row):
        return None
    open_columns = [column for column in columns if column not in row]
    if not open_columns:
        return {column: row[column] for column in columns}
    order = list(columns)

    def gain(column: str, value: str) -> int:
        new = (column, value)
        pairs = ((new, old) if order.index(column) < order.index(old[0]) else (old, new) for old in row.items())
        return sum(pair in left for pair in pairs)

    column = open_columns[0]
    for value in sorted(columns[column], key=lambda value: -gain(column, value)):
        if found := _complete({**row, column: value}, columns, fits, left):
            return found
    return None
