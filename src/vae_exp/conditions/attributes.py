"""y is a row of attributes, real, binary or categorical."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae_exp.columns import columns_of, moments
from vae_exp.conditions.classes import Label
from vae_exp.config import ConfigError

__all__ = ["Attributes"]

WIDTH = 2  # standard deviations around the mean of a real attribute that are shown
MOST_NAMES = 4  # attributes that are named one by one


class Attributes(nn.Module):
    """y `(B, A)` is a row of attributes in their own units, and c the row as networks like it.

    A real attribute is standardised by its mean and standard deviation over the training images, a binary one is 0 or
    1, a categorical one, whose y is a place among its categories, is one-hot.

    Arguments:
        attributes: The columns, see `vae_exp.columns.columns_of`; a count is taken for a real number.

    Attributes:
        names: Of the attributes; the others are those of `Classes`.
    """

    num_classes = 0
    axis = "value of an attribute, the others as in most images"
    shift: Tensor
    factor: Tensor
    middle: Tensor

    def __init__(self, attributes: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.columns = columns_of([
            {**one, "kind": "real" if one["kind"] in ("count", "positive") else one["kind"]} for one in attributes
        ])  # fmt: skip
        self.names = tuple(column.name for column in self.columns)
        self.width = sum(len(column.categories) or 1 for column in self.columns)
        few = len(self.names) <= MOST_NAMES
        self.given = ", ".join(self.names) if few else f"{len(self.names)} attributes"
        self.no_classes = f"y is no class, but attributes: {', '.join(self.names[:MOST_NAMES])}{'' if few else ', ...'}"
        self.register_buffer("shift", torch.zeros(len(self.columns)))
        self.register_buffer("factor", torch.ones(len(self.columns)))
        self.register_buffer("middle", torch.zeros(len(self.columns)))

    def forward(self, y: Tensor) -> Tensor:
        """`(B, A) -> (B, width)`.

        Raises:
            ValueError: If y has not one number for each attribute.
        """
        if y.dim() != 2 or y.shape[1] != len(self.columns):
            raise ValueError(f"(B, {len(self.columns)}), one number each for {self.given}, but y is {tuple(y.shape)}")
        scaled = (y - self.shift) / self.factor
        each = []
        for d, column in enumerate(self.columns):
            value = scaled[:, d : d + 1]
            places = torch.arange(len(column.categories), device=y.device)
            each.append((value.round() == places).to(scaled.dtype) if column.categories else value)
        return torch.cat(each, dim=1)

    @torch.no_grad()
    def fit(self, y: Tensor) -> "Attributes":
        """Takes mean and standard deviation of real attributes, and what is most frequent of others, from y `(N, A)`
        of the training images."""
        mean, deviation = moments([y])
        is_real = torch.tensor([column.kind == "real" for column in self.columns])
        mode = y.mode(dim=0).values.cpu()
        self.shift.copy_(torch.where(is_real, mean.cpu(), 0))
        self.factor.copy_(torch.where(is_real, deviation.cpu(), 1))
        self.middle.copy_(torch.where(is_real, mean.cpu(), mode))
        return self

    def check(self, split: str, y: Tensor) -> None:
        """Raises ValueError if entries of a split are missing, or none that their attribute can have."""
        if y.dim() != 2 or y.shape[1] != len(self.columns):
            raise ValueError(f"data.attributes names {len(self.columns)}, but y of {split} is {tuple(y.shape)}")
        for column, values in zip(self.columns, y.T, strict=True):
            if missing := int(values.isnan().sum()):
                raise ValueError(
                    f"attribute {column.name!r} is missing for {missing} of {len(values)} images of {split}: fill it "
                    "in, take these images out, or leave the attribute out"
                )
            allowed = column.support.check(values)
            if not allowed.all():
                raise ValueError(
                    f"attribute {column.name!r} is {column.kind}, but {split} holds {float(values[~allowed][0]):g}"
                )

    def example(self, num: int) -> Tensor:
        """`(num, A)`: values that each attribute can have, in turn."""
        rows = [self.values(d) for d in range(len(self.columns))]
        return torch.tensor([[values[i % len(values)] for values in rows] for i in range(num)])

    def typical(self, num: int) -> Tensor:
        """`(num, A)`: of each attribute the mean, or the most frequent value, of the training images."""
        return self.middle.cpu().expand(num, -1).clone()

    def told(self, label: Label, y: Tensor | None, num: int) -> Tensor:
        """`(num, A)`: y with the attributes that `label` states, by name, in their own units and categories.

        Raises:
            ConfigError: If an attribute does not exist, cannot be so, or is not stated at all.
        """
        if label is not None and not isinstance(label, Mapping):
            example = f"{{{self.names[0]}: {self.columns[0].text(float(self.middle[0]))}}}"
            raise ConfigError(f"label={label}: y is attributes, state them by name, 'label={example}'")
        places = {self.place(str(name), "label"): value for name, value in (label or {}).items()}
        stated = {d: self._number(d, value) for d, value in places.items()}
        missing = [name for d, name in enumerate(self.names) if d not in stated]
        if y is None and missing:
            more = ", ..." if len(missing) > MOST_NAMES else ""
            raise ConfigError(
                f"label: the model needs every attribute of an image, and {', '.join(missing[:MOST_NAMES])}{more} "
                f"of it are unknown: 'label={{{missing[0]}: ...}}'"
            )
        rows = self.typical(num) if y is None else y.clone()
        for d, value in stated.items():
            rows[:, d] = value
        return rows

    def place(self, name: str | None, key: str = "attribute") -> int:
        """The number of an attribute.

        Raises:
            ConfigError: If there is none of this name; the message names `key`.
        """
        if name not in self.names:
            raise ConfigError(f"{key}={'null' if name is None else name}: choose of {', '.join(self.names)}")
        return self.names.index(name)

    def _number(self, d: int, value: Any) -> float:
        column = self.columns[d]
        texts = list(map(str, column.categories))
        try:
            number = float(texts.index(str(value)) if texts else value)
        except (TypeError, ValueError):
            number = float("nan")
        if not bool(column.support.check(torch.tensor(number))):
            needed = f"one of {', '.join(texts)}" if texts else "0 or 1" if column.kind == "binary" else "a number"
            raise ConfigError(f"label: {column.name}={value}: {needed} is needed")
        return number

    def values(self, d: int, num: int = 5) -> list[float]:
        """Values of an attribute to be shown: all that there are; of a real one `num` around its mean."""
        column = self.columns[d]
        if column.kind != "real":
            return [float(k) for k in range(len(column.categories) or 2)]
        return (self.shift[d].cpu() + self.factor[d].cpu() * torch.linspace(-WIDTH, WIDTH, num)).tolist()

    def text(self, d: int, value: float) -> str:
        """A value of an attribute in words, `age = 31.2`."""
        return f"{self.names[d]} = {f'{value:.3g}' if self.columns[d].kind == 'real' else self.columns[d].text(value)}"

    def varied(self, y: Tensor, d: int, num: int = 5) -> list[tuple[str, Tensor]]:
        """Rows `(A,)` that are y but for attribute d, which takes its values, with their names."""
        rows = [(self.text(d, value), y.clone()) for value in self.values(d, num)]
        for (_, row), value in zip(rows, self.values(d, num), strict=True):
            row[d] = value
        return rows

    def grouped(self, y: Tensor, d: int) -> Tensor:
        """The group of each row `(N, A)` by attribute d, `(N,)`: its value, or whether a real one is above its mean."""
        column = y[:, d]
        return (column > self.shift[d].to(y)).long() if self.columns[d].kind == "real" else column.round().long()

    def groups(self, d: int) -> list[str]:
        """The names of the groups."""
        if self.columns[d].kind != "real":
            return [self.text(d, value) for value in self.values(d)]
        return [f"{self.names[d]} {sign} {float(self.shift[d]):.3g}" for sign in ("≤", ">")]

    def caption(self, y: Tensor) -> str:
        """One row `(A,)` in words, the first attributes of many."""
        texts = [self.text(d, value) for d, value in enumerate(y.tolist())]
        return ", ".join(texts[:MOST_NAMES]) + (", ..." if len(texts) > MOST_NAMES else "")

    def table(self, y: Tensor) -> dict[str, list[Any]]:
        """Rows `(N, A)` as columns of a file."""
        return {
            column.name: [column.text(value) for value in values.tolist()]
            for column, values in zip(self.columns, y.T, strict=True)
        }
