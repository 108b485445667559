"""y is one class."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_exp.columns import Column
from vae_exp.config import ConfigError

__all__ = ["Classes", "Label"]

Label = int | Mapping[str, Any] | None  # what a command's `label` may be


class Classes(nn.Module):
    """y `(B,)` is one of Y classes, whole numbers from 0, -1 for none; c `(B, Y)` is one-hot.

    Arguments:
        num_classes: Y; 0 for data without labels.

    Attributes:
        width: Of c.
        given: What c stands for, in `log p(x|...)`.
        names: What y holds, one thing or several.
        axis: What one of its values is, in words.
        no_classes: Why y is no class; empty if it is one.
    """

    given = "y"
    names: tuple[str, ...] = ("y",)
    axis = "class"
    columns: tuple[Column, ...] = ()

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = self.width = num_classes
        self.no_classes = "" if num_classes else "the data have no labels (data.num_classes=null)"

    def forward(self, y: Tensor) -> Tensor:
        """`(B,) -> (B, Y)`.

        Raises:
            ValueError: If y is no row of labels.
        """
        try:
            return F.one_hot(y, self.num_classes)
        except RuntimeError as error:
            raise ValueError(f"whole numbers from 0 to {self.num_classes - 1}, one for each image") from error

    def fit(self, y: Tensor) -> "Classes":
        """Nothing is learned of the training labels."""
        return self

    def check(self, split: str, y: Tensor) -> None:
        """Raises ValueError if labels of a split are none of these."""
        if y.dim() != 1:
            raise ValueError(f"the labels y of {split} are {tuple(y.shape)}: state what they are in data.attributes")
        lowest, highest = int(y.min()), int(y.max())
        if self.num_classes and not 0 <= lowest <= highest < self.num_classes:
            way = "\n  save them as numpy.savez(..., y=y - 1)" if (lowest, highest) == (1, self.num_classes) else ""
            raise ValueError(f"data.num_classes={self.num_classes}, but the labels are {lowest} to {highest}{way}")

    def example(self, num: int) -> Tensor:
        """`(num,)`: all classes in turn."""
        return torch.arange(num) % max(self.num_classes, 1)

    def typical(self, num: int) -> Tensor:
        """`(num,)`: the first class."""
        return torch.zeros(num, dtype=torch.long)

    def told(self, label: Label, y: Tensor | None, num: int) -> Tensor:
        """`(num,)`, the labels that `label` states, or else y.

        Raises:
            ConfigError: If there is no such class, or no label.
        """
        if label is None and y is not None:
            return y
        if not isinstance(label, int) or not 0 <= label < self.num_classes:
            if label is None:
                raise ConfigError(
                    f"label=null: the model needs the label of each image, give label=0 to {self.num_classes - 1}"
                )
            raise ConfigError(f"label={label}: the labels of this run are 0 to {self.num_classes - 1}")
        return torch.full((num,), label)

    def place(self, name: str | None) -> int:
        """0, for y is one thing.

        Raises:
            ConfigError: If an attribute is named.
        """
        if name not in (None, "y"):
            raise ConfigError(f"attribute={name}: y is one of {self.num_classes} classes and no attributes")
        return 0

    def varied(self, y: Tensor, d: int = 0, num: int = 5) -> list[tuple[str, Tensor]]:
        """Every class, `()`, with its name, in place of a label y `()`."""
        return [(f"y = {k}", torch.full_like(y, k)) for k in range(self.num_classes)]

    def grouped(self, y: Tensor, d: int = 0) -> Tensor:
        """Labels `(N,)` are groups already."""
        return y

    def groups(self, d: int = 0) -> list[str]:
        """The names of the groups."""
        return [f"y = {k}" for k in range(self.num_classes)]

    def caption(self, y: Tensor) -> str:
        """One label `()` in words."""
        return f"y = {int(y)}"

    def table(self, y: Tensor) -> dict[str, list[Any]]:
        """Labels `(N,)` as columns of a file."""
        return {"y": y.tolist()}
