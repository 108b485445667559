"""Curves of a group: the mean over its seeds at each validation, and the band from the lowest seed to the highest."""

from math import fsum, isfinite, nan
from typing import NamedTuple

from vae_exp.comparison.groups import Group
from vae_exp.comparison.read import AXES

__all__ = ["Curves", "curves"]

MOST = 300  # validations that are drawn; of more, every second, third, ...


class Curves(NamedTuple):
    """Columns of the same length `(T,)`, a row for each validation that all seeds have; nan where one has no number.

    Arguments:
        axes: `step` (the same for all seeds), `epoch`, `seconds` (their mean over the seeds).
        mean: By term.
        low: By term, the lowest seed.
        high: By term, the highest seed.
        is_cut: Whether a seed went on when another had ended.
    """

    axes: dict[str, list[float]]
    mean: dict[str, list[float]]
    low: dict[str, list[float]]
    high: dict[str, list[float]]
    is_cut: bool


def curves(group: Group, terms: tuple[str, ...]) -> Curves | None:
    """The curves of the runs of a group that have any; None if none has.

    Arguments:
        group: The group.
        terms: elbo, kl, recon, ...
    """
    tables = [run.curves for run in group.runs if run.curves.get("step")]
    if not tables:
        return None
    rows = [{step: row for row, step in enumerate(table["step"])} for table in tables]
    steps = sorted(set.intersection(*map(set, rows)))
    steps = steps[:: -max(1, -(-len(steps) // MOST))][::-1]  # from the end, which stays

    def column(name: str) -> list[list[float]]:
        """The numbers of all seeds at each step."""
        return [
            [table[name][row[step]] if name in table else nan for table, row in zip(tables, rows, strict=True)]
            for step in steps
        ]

    def means(name: str) -> list[float]:
        return [fsum(each) / len(each) if all(map(isfinite, each)) else nan for each in column(name)]

    def ends(name: str, end: object) -> list[float]:
        return [end(each) if all(map(isfinite, each)) else nan for each in column(name)]  # type: ignore[operator]

    known = [term for term in terms if any(term in table for table in tables)]
    return Curves(
        axes={axis: means(axis) for axis in AXES if any(axis in table for table in tables)},
        mean={term: means(term) for term in known},
        low={term: ends(term, min) for term in known},
        high={term: ends(term, max) for term in known},
        is_cut=len({table["step"][-1] for table in tables}) > 1,
    )
