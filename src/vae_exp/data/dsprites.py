"""dSprites (Matthey, Higgins, Hassabis & Lerchner, 2017): sprites in all combinations of their factors."""

import math
import zipfile
from pathlib import Path
from typing import IO, ClassVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch.hub import tqdm

from vae_exp.data.download import FileSet, corrupt
from vae_exp.data.grid import Grid
from vae_exp.data.split import Split

SIDE = 64
ROWS = 4096  # images read at a time: 16 MB of three gigabytes


@final
class DSprites(Grid):
    """Bits (1, 64, 64): one white square, ellipse or heart (the label) on black, drawn at random from all 737,280.

    Each `load` reads all of them, a few at a time; the pickle in the file is not read. The colour is always the same
    and no factor here. For arguments and errors see `Grid`.
    """

    factor_names = ("shape", "scale", "rotation", "x", "y")
    sizes = (3, 6, 40, 32, 32)
    unordered = ("shape",)
    units: ClassVar = {"scale": (0.5, 1), "rotation": (0, 2 * math.pi), "x": (0, 1), "y": (0, 1)}
    files = FileSet(
        title="dSprites",
        names=("dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",),
        folders=("dsprites", ""),
        offline="from github.com/google-deepmind/dsprites-dataset; data=sprites needs no file",
    )

    def fetch(self, root: Path) -> None:
        """Only checks early that the file is there: nothing is downloaded."""
        self.files.find(root)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train", "val" and "test"; y is the shape, or the factors of `label` in the units of the file.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it is corrupt, or its images are not all combinations of the factors in order.
        """
        (path,) = self.files.find(root)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                classes = file["latents_classes"]
            pixels = self._pixels(path)
        except Exception as error:  # numpy, zipfile and zlib raise errors of many types
            raise corrupt(path, f"not the .npz file of dSprites ({type(error).__name__}: {error})") from error
        everywhere = np.unravel_index(np.arange(math.prod(self.sizes)), self.sizes)
        if not np.array_equal(classes, np.stack([np.zeros_like(everywhere[0]), *everywhere], axis=1)):
            raise corrupt(path, "latents_classes are not all combinations in order")
        return {name: self.labelled(x, name) for name, x in pixels.items()}

    def _pixels(self, path: Path) -> dict[str, torch.Tensor]:
        """The pixels of each split, `(N, 1, 64, 64)` uint8, 0 or 255, from one pass through the file."""
        places = {name: self.places(name) for name in self.split_sizes}
        pixels = {name: np.empty((len(p), 1, SIDE, SIDE), np.uint8) for name, p in places.items()}
        total = math.prod(self.sizes)
        with (
            zipfile.ZipFile(path) as archive,
            archive.open("imgs.npy") as file,
            tqdm(total=total, desc="reading dSprites", disable=None) as bar,
        ):
            _check_header(file, total)
            for start in range(0, total, ROWS):
                images = _read(file, min(ROWS, total - start))
                for name, p in places.items():
                    here = np.flatnonzero((p >= start) & (p < start + len(images)))
                    pixels[name][here, 0] = images[p[here] - start] * np.uint8(255)
                bar.update(len(images))
            if file.read(1):  # reading to the end also compares the checksum
                raise ValueError("imgs has more bytes than pixels")
        return {name: torch.from_numpy(x) for name, x in pixels.items()}


def _check_header(file: IO[bytes], total: int) -> None:
    """Reads up to the pixels."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, is_fortran, dtype = read(file)
    if shape != (total, SIDE, SIDE) or is_fortran or dtype != np.uint8:
        raise ValueError(f"imgs is {dtype} {shape}, not uint8 {(total, SIDE, SIDE)} in C order")


def _read(file: IO[bytes], rows: int) -> npt.NDArray[np.uint8]:
    """`(rows, 64, 64)`, 0 or 1."""
    content = file.read(rows * SIDE * SIDE)
    images = np.frombuffer(content, np.uint8).reshape(rows, SIDE, SIDE)  # a ValueError if the file ends early
    if images.max() > 1:
        raise ValueError("imgs are not all 0 and 1")
    return images
