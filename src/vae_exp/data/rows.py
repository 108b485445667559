"""The rows of a table, as the data module needs to know them: the counterpart of pixels (`representation`)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from vae_exp.columns import Column, RowsOf
from vae_exp.data.representation import Representation

__all__ = ["Rows"]


class Rows(Representation):
    """Rows in the table's own units; nothing is made of them before they are scored.

    Arguments:
        columns: The columns.
    """

    unit = "row"
    columns: tuple[Column, ...]

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(levels=None)
        object.__setattr__(self, "columns", tuple(columns))

    @property
    def title(self) -> str:
        """The kinds of its columns."""
        return repr(self.support)

    @property
    def support(self) -> Constraint:
        """The rows that may be."""
        return RowsOf(self.columns)

    @property
    def can_be_scaled(self) -> bool:
        """False: each column has a scale of its own, which encoder and likelihood know."""
        return False

    @property
    def has_missing(self) -> bool:
        """Whether entries may be nan."""
        return any(column.missing for column in self.columns)

    @property
    def ways(self) -> str:
        """What to choose where a likelihood does not score such rows, for messages."""
        return "likelihood=columns, the default of data=table"

    def lies_in(self, support: Constraint, image_shape: tuple[int, ...]) -> bool:
        """Whether rows lie in the set that a distribution scores."""
        return bool(support.check(RowsOf(self.columns).examples).all())

    def check(self, name: str, x: Tensor) -> None:
        """Raises ValueError if an entry is not what its column holds."""
        allowed = self.support.check(x).flatten(0, -2)
        for d, column in enumerate(self.columns):
            if not allowed[:, d].all():
                wrong = x.flatten(0, -2)[~allowed[:, d], d][0]
                raise ValueError(
                    f"column {column.name!r} is {column.kind}, but {name} holds {wrong:g}: "
                    f"'data.source.kinds={{{column.name}: real}}'"
                )

    def fix(self, x: Tensor, generator: torch.Generator, in_training: bool) -> Tensor:
        """Rows as they are."""
        return x

    def view(self, x: Tensor) -> Tensor:
        """Rows as they are."""
        return x

    def like(self, other: Representation) -> "Rows":
        """Rows as they are."""
        return self
