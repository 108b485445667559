"""Arrays of the user, in a file that numpy.savez wrote."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch

from vae_exp.data.download import corrupt
from vae_exp.data.files import memory
from vae_exp.data.split import Source, Split

SPLITS = ("train", "val", "test")
MOST = 2**24


class TooLargeError(Exception):
    """The arrays of a file need more memory than this machine has."""


@final
class NPZ(Source):
    """Images x and labels y from a .npz file; no pickle is read.

    The file holds `x`, or `x_train` and, if the set has such splits, `x_val` and `x_test`; for each of them optional
    labels `y`, `y_train`, ... Other arrays are ignored. Pixels are bytes from 0 to 255, bools, floats, or
    whole numbers of another type, which are counts. Images are
    `(N, C, H, W)`, `(N, H, W, C)`, or `(N, H, W)` if C is 1; `image_shape` decides which (if C = H = W, channels come
    first). Labels are whole numbers `(N,)`.

    Args:
        path: The file, in the current folder or in data.root. With None `fetch` and `load` raise an error.
        image_shape: (C, H, W).
    """

    def __init__(self, path: str | None, image_shape: Sequence[int]) -> None:
        self.path = path
        self.image_shape = tuple(image_shape)

    def fetch(self, root: Path) -> None:
        """Only checks early that the file is there."""
        self._find(root)

    def load(self, root: Path) -> dict[str, Split]:
        """Split "train", and "val" and "test" if they exist; x uint8 or float32.

        Raises:
            FileNotFoundError: If the file is not there, or data.source.path not given.
            ValueError: If an array is missing, or not of an accepted kind.
        """
        path = self._find(root)
        try:
            with path.open("rb") as stream:
                file = np.load(stream, allow_pickle=False)
                arrays = None if isinstance(file, np.ndarray) else _small_enough(path, file)
        except TooLargeError as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # numpy's parser raises errors of many types, for a pickle a ValueError
            raise corrupt(path, f"not an .npz file of plain arrays ({type(error).__name__}: {error})") from error
        if arrays is None:
            raise ValueError(f"{path}: one array without a name; save it with numpy.savez({path.stem!r}, x=...)")
        names = {"train": "x"} if "x" in arrays else {split: f"x_{split}" for split in SPLITS if f"x_{split}" in arrays}
        if "train" not in names or ("x" in arrays and any(f"x_{split}" in arrays for split in SPLITS)):
            raise ValueError(
                f"{path} holds {', '.join(arrays) or 'nothing'}: either x is needed, or x_train (with x_val and x_test "
                "if the set has such splits)"
            )
        return {split: self._split(path, arrays, x) for split, x in names.items()}

    def _find(self, root: Path) -> Path:
        if self.path is None:
            raise FileNotFoundError("data.source.path is not given: data=npz reads the file data.source.path=FILE.npz")
        candidates = (Path(self.path), root / self.path)
        for path in candidates:
            if path.is_file():
                return path
        places = " and no ".join(str(path.absolute()) for path in dict.fromkeys(candidates))
        raise FileNotFoundError(f"data.source.path={self.path}: there is no {places}")

    def _split(self, path: Path, arrays: Mapping[str, np.ndarray], name: str) -> Split:
        x, label = self._pixels(path, name, arrays[name]), name.replace("x", "y", 1)
        y = arrays.get(label, np.full(len(x), -1))
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: {label} is {y.dtype} {y.shape}, whole numbers are needed, one for each of {len(x)} images"
            )
        return Split(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))

    def _pixels(self, path: Path, name: str, x: np.ndarray) -> np.ndarray:
        """uint8 or float32 `(N, C, H, W)`."""
        channels, height, width = self.image_shape
        if x.shape[1:] == (height, width) and channels == 1:
            x = x[:, None]
        elif x.shape[1:] == (height, width, channels) != self.image_shape:
            x = x.transpose(0, 3, 1, 2)
        if x.shape[1:] != self.image_shape or not len(x):
            needed = f"(N, {channels}, {height}, {width}) or (N, {height}, {width}, {channels})"
            needed += f" or (N, {height}, {width})" if channels == 1 else ""
            raise ValueError(
                f"{path}: {name} is of shape {x.shape}, but data.image_shape={list(self.image_shape)} needs {needed}"
            )
        if x.dtype == bool:
            return np.ascontiguousarray(x) * np.uint8(255)
        if x.dtype == np.uint8:
            if x.max() == 1:
                raise ValueError(
                    f"{path}: the bytes of {name} are 0 and 1, but white is 255: save them as bool, or times 255"
                )
            return np.ascontiguousarray(x)
        if x.dtype.kind in "iu" and x.max() > MOST:
            raise ValueError(f"{path}: {name} goes up to {x.max()}; float32 holds whole numbers up to {MOST} exactly")
        if x.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} is {x.dtype}: a whole number, bool or float type is needed")
        return np.ascontiguousarray(x, np.float32)


def _small_enough(path: Path, file: "np.lib.npyio.NpzFile") -> dict[str, np.ndarray]:
    """The arrays of a file, which may be much larger than it."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > (most := memory() // 2):
        raise TooLargeError(f"{path} unzips to {size:,} bytes; half the memory of this machine, {most:,}, is the limit")
    return dict(file)
