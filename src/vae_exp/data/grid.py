"""Sources of images with known factors."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.split import Source, Split


class Grid(Source):
    """One image for each combination of factor values; splits are drawn from all images, without replacement.

    Args:
        train_size: Images to train on; the number does not change the images to validate or test on.
        val_size: Images to validate on.
        test_size: Images to test on.
        seed: Fixes which images are drawn.
        label: The factor that is y, `shape`; or a list of factors, the attributes in y.

    Raises:
        ValueError: If a size is out of its range.
    """

    sizes: tuple[int, ...]  # how many values each factor has
    units: ClassVar[Mapping[str, tuple[float, float]]] = {}  # first and last value of those that are numbers

    def __init__(
        self, train_size: int, val_size: int, test_size: int, seed: int, label: str | Sequence[str] = "shape"
    ) -> None:
        if label != "shape" and (isinstance(label, str) or not label or not set(label) <= set(self.factor_names)):
            raise ValueError(
                f"data.source.label={label}: shape is needed, or a list of factors, of {', '.join(self.factor_names)}"
            )
        self.label = label
        self.split_sizes = {"test": test_size, "val": val_size, "train": train_size}
        for name, size in self.split_sizes.items():
            if size < 1:
                raise ValueError(f"data.source.{name}_size={size}: at least 1 is needed")
        if sum(self.split_sizes.values()) > math.prod(self.sizes):
            raise ValueError(
                f"data.source.train_size={train_size}: with val_size={val_size} and test_size={test_size} "
                f"these are more than the {math.prod(self.sizes)} existing images"
            )
        self.seed = seed

    def factors(self, split: str) -> Tensor:
        """`(N, F)` int64: the factor values of each image of a split."""
        return torch.from_numpy(np.stack(np.unravel_index(self.places(split), self.sizes), axis=1))

    def labelled(self, x: Tensor, split: str) -> Split:
        """Images of a split with what is asked for in y, and their factors."""
        factors = self.factors(split)
        if isinstance(self.label, str):
            return Split(x, factors[:, self.factor_names.index(self.label)].clone(), factors=factors)
        columns = []
        for name in self.label:
            place = self.factor_names.index(name)
            first, last = self.units.get(name, (0, self.sizes[place] - 1))
            columns.append(torch.linspace(first, last, self.sizes[place])[factors[:, place]])
        return Split(x, torch.stack(columns, dim=1), factors=factors)

    def places(self, split: str) -> npt.NDArray[np.int64]:
        """`(N,)`: the positions of a split's images among all images, where the last factor changes fastest."""
        order = np.random.default_rng(self.seed).permutation(math.prod(self.sizes))
        start = 0
        for name, size in self.split_sizes.items():
            if name == split:
                return order[start : start + size]
            start += size
        raise ValueError(f"split {split}: choose one of {', '.join(self.split_sizes)}")
