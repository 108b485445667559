"""MNIST, statically binarised (Salakhutdinov & Murray, 2008; files by Larochelle & Murray, 2011)."""

from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from vae_exp.data.download import FileSet, corrupt, download
from vae_exp.data.split import Source, Split

URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
ROWS = {  # nothing else is known about the files: no checksum is published
    "binarized_mnist_train.amat": 50_000,
    "binarized_mnist_valid.amat": 10_000,
    "binarized_mnist_test.amat": 10_000,
}


@final
class BinarizedMNIST(Source):
    """The fixed binarisation for which papers report likelihoods; pixels 0 or 255, no labels."""

    files = FileSet(title="binarized MNIST", names=tuple(ROWS), folders=("binarized_mnist", ""))

    def fetch(self, root: Path) -> None:
        """Download 110 MB."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train", "val" and "test", (1, 28, 28)."""
        images = zip(("train", "val", "test"), map(read, self.files.find(root)), strict=True)
        return {split: Split(x, torch.full((len(x),), -1)) for split, x in images}

    def _download(self, scratch: Path) -> Path:
        for name in self.files.names:
            download(URL + name, scratch / name, read)
        return scratch


def read(path: Path) -> Tensor:
    """Lines of 784 numbers '0' or '1' -> (N, 1, 28, 28)."""
    rows = ROWS[path.name]
    text = np.fromfile(path, np.uint8)
    # Each number is one byte, so it is enough to drop the white space.
    pixels = text[text > ord(" ")] - np.uint8(ord("0"))  # wraps around below '0'
    if pixels.size != rows * 784 or (pixels > 1).any():
        raise corrupt(path, f"{text.size} bytes, not {rows} rows of 784 zeros and ones")
    return torch.from_numpy(pixels * np.uint8(255)).reshape(rows, 1, 28, 28)
