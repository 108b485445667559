"""The columns of a table: what each holds, in which form a row is a tensor, and the set of rows that is scored.

A row of D columns is a tensor `(1, 1, D)` in the table's own units: numbers as they are, a category as its place in the
list of categories, and nan where the entry is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from vae_exp.precision import exact

__all__ = ["KINDS", "Column", "RowsOf", "columns_of", "moments", "on_line"]

KINDS = {
    "real": "a real number",
    "positive": "a real number above 0",
    "count": "a whole number from 0 on",
    "binary": "0 or 1",
    "categorical": "one of a list of categories",
}
EXAMPLES: dict[str, list[float]] = {
    "real": [-1e4, 0.1],
    "positive": [1e-3, 1e4],
    "count": [0, 7],
    "binary": [0, 1],
    "categorical": [0, 1],
}
SETS: dict[str, Constraint] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "count": constraints.nonnegative_integer,
    "binary": constraints.boolean,
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Arguments:
        name: As in the first line of the file.
        kind: One of `KINDS`.
        categories: What a categorical column may hold.
        missing: Whether entries may be missing.
    """

    name: str
    kind: str
    categories: tuple[Any, ...] = ()
    missing: bool = False

    @property
    def support(self) -> Constraint:
        """The values that it may have where it is not missing."""
        return SETS.get(self.kind) or constraints.integer_interval(0, len(self.categories) - 1)

    def text(self, value: float) -> str:
        """An entry as it stands in the file."""
        if value != value:
            return ""
        if self.kind == "categorical":
            return str(self.categories[round(value)])
        return f"{value:.7g}" if self.kind in ("real", "positive") else str(int(value + 0.5))


def columns_of(given: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """The columns that a config names, as `vae_exp.data.schema` found them.

    Raises:
        ValueError: If there is none, or one is of no known kind.
    """
    columns = tuple(Column(**{**column, "categories": tuple(column.get("categories", ()))}) for column in given)
    for column in columns:
        if column.kind not in KINDS:
            raise ValueError(f"data.source.kinds: {column.name} is {column.kind}; choose of {', '.join(KINDS)}, none")
    if not columns:
        raise ValueError("the table has no columns that could be modelled")
    return columns


class RowsOf(Constraint):
    """Rows `(..., D)` of these columns, each entry allowed or missing."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        super().__init__()

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether rows have a mass: whether no column is of real numbers."""
        return all(column.kind not in ("real", "positive") for column in self.columns)

    def check(self, value: Tensor) -> Tensor:
        """Of each entry, `(..., D)`."""
        if value.shape[-1] != len(self.columns):
            return torch.zeros_like(value, dtype=torch.bool)
        each = [column.support.check(value[..., d]) | value[..., d].isnan() for d, column in enumerate(self.columns)]
        return torch.stack(each, dim=-1)

    @property
    def examples(self) -> Tensor:
        """Two rows, and one of missing entries if some may be missing, `(N, 1, 1, D)`."""
        rows = [[EXAMPLES[column.kind][i] for column in self.columns] for i in range(2)]
        missing = [float("nan") if column.missing else EXAMPLES[column.kind][0] for column in self.columns]
        return torch.tensor([*rows, missing]).view(3, 1, 1, len(self.columns))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowsOf) and [(c.name, c.kind, c.categories) for c in self.columns] == [
            (c.name, c.kind, c.categories) for c in other.columns
        ]

    def __hash__(self) -> int:
        return hash(self.columns)

    def __repr__(self) -> str:
        counts = {kind: sum(column.kind == kind for column in self.columns) for kind in KINDS}
        return f"rows of {', '.join(f'{n} {kind}' for kind, n in counts.items() if n)}"


def moments(rows: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over batches `(B, D)`, without missing entries: `(D,)` each, float64.

    Of a column without any entry they are 0 and 1, and the deviation of one that does not vary is 1.
    """
    num: Any = 0
    total: Any = 0
    squares: Any = 0
    shift: Tensor | None = None
    for x in rows:
        x = x.to(exact(x))
        shift = x.nan_to_num().mean(0) if shift is None else shift  # so that the squares lose no digits
        known = ~x.isnan()
        x = torch.where(known, x - shift, torch.zeros_like(x))
        num, total, squares = num + known.sum(0), total + x.sum(0), squares + x.square().sum(0)
    if shift is None:
        raise ValueError("there are no rows to take the scales of the columns from")
    num = torch.as_tensor(num).clamp(min=1)
    mean = total / num
    deviation = (squares / num - mean.square()).clamp(min=0).sqrt()
    return mean + shift * (num > 0), torch.where(deviation > 1e-12, deviation, 1.0)


def on_line(x: Tensor, columns: Sequence[Column]) -> Tensor:
    """`(B, 1, 1, D) -> (B, D)`: the logarithm of positive numbers and of counts plus 1, all else as it is."""
    rows = x.flatten(1)
    is_positive, is_count = (
        torch.tensor([column.kind == kind for column in columns], device=x.device) for kind in ("positive", "count")
    )
    rows = torch.where(is_positive, torch.where(is_positive, rows, 1).log(), rows)
    return torch.where(is_count, torch.where(is_count, rows, 0).log1p(), rows)
