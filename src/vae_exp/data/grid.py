"""Sources of images with known factors."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.split import Source


class Grid(Source):
    """One image for each combination of factor values; splits are drawn from all images, without replacement.

    Args:
        train_size: Images to train on; the number does not change the images to validate or test on.
        val_size: Images to validate on.
        test_size: Images to test on.
        seed: Fixes which images are drawn.

    Raises:
        ValueError: If a size is out of its range.
    """

    sizes: tuple[int, ...]  # how many values each factor has

    def __init__(self, train_size: int, val_size: int, test_size: int, seed: int) -> None:
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

    def places(self, split: str) -> npt.NDArray[np.int64]:
        """`(N,)`: the positions of a split's images among all images, where the last factor changes fastest."""
        order = np.random.default_rng(self.seed).permutation(math.prod(self.sizes))
        start = 0
        for name, size in self.split_sizes.items():
            if name == split:
                return order[start : start + size]
            start += size
        raise ValueError(f"split {split}: choose one of {', '.join(self.split_sizes)}")
