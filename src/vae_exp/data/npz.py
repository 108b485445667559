"""Arrays of the user, in a file that numpy.savez or numpy.save wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from vae_exp.arrays import arrays_of, names_of, read, size
from vae_exp.data.attributes import NAMES as ATTRIBUTES
from vae_exp.data.attributes import factors_of, frame_of, rows
from vae_exp.data.download import corrupt
from vae_exp.data.files import memory
from vae_exp.data.representation import Levels
from vae_exp.data.split import Source, Split
from vae_exp.paths import located

Array = npt.NDArray[Any]
MOST = 2**24  # whole numbers up to it are exact in float32


@final
class NPZ(Source):
    """Images x and labels y from a .npz file, or images alone from a .npy file; no pickle is read.

    The file holds `x`, or `x_train` and, if the set has such splits, `x_val` and `x_test`; for each of them optional
    labels or attributes `y`, `y_train`, ... The names of MedMNIST, `train_images` and `train_labels`, do as well.
    Factors of variation, `factors` `(N, F)` with `factor_names`, are for the metric `factors`. Other arrays are left
    alone. Pixels are bytes from 0 to 255, bools, floats, or whole numbers of another type, which are counts unless
    `levels` is a number; with `levels` 2 numbers 0 and 1 of any type are bits. Images are `(N, C, H, W)`,
    `(N, H, W, C)`, or `(N, H, W)` if C is 1; `image_shape` decides which (if C = H = W, channels come
    first). Labels are whole numbers or words, `(N,)` or `(N, 1)`, or one-hot `(N, K)`; words are numbered in
    alphabetical order.

    Args:
        path: The file: absolute, from the current folder, or in data.root. With None `fetch` and `load` raise an error.
        image_shape: (C, H, W).
        attributes: What the columns of y `(N, A)` are, by the names in the array `attributes` of the file, or y0, y1,
            ...; None if y is of labels.
        levels: See `Representation`; 2 makes bits of all numbers 0 and 1, 2 to 256 bytes of whole numbers up to 255.
    """

    def __init__(
        self,
        path: str | None,
        image_shape: Sequence[int],
        levels: Levels = None,
        attributes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if len(image_shape) != 3:
            raise ValueError(_no_image(image_shape))
        self.path = path
        self.image_shape = tuple(image_shape)
        self.levels = levels
        self.attributes = attributes

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
            names = names_of(path)
        except ValueError as error:
            raise corrupt(path, str(error)) from error
        of_x, of_y = arrays_of(names, "x"), arrays_of(names, "y")
        if "train" not in of_x or ("x" in names and len(of_x) > 1) or ("x" in names and "x" not in of_x.values()):
            raise ValueError(
                f"{path} holds {', '.join(names) or 'nothing'}: either x is needed, or x_train (with x_val and x_test "
                "if the set has such splits)"
            )
        used = [*of_x.values(), *(of_y[split] for split in of_x if split in of_y)]
        used += [ATTRIBUTES] if self.attributes and ATTRIBUTES in names else []
        of_factors = {split: f"factors_{split}" for split in of_x if f"factors_{split}" in names}
        of_factors |= {"train": "factors"} if "factors" in names else {}
        used += [*of_factors.values(), *(["factor_names"] if of_factors and "factor_names" in names else [])]
        if (total := sum(size(path, name) for name in used)) > (most := memory() // 2):
            raise ValueError(
                f"{path} unzips to {total:,} bytes; half the memory of this machine, {most:,}, is the limit"
            )
        try:
            arrays = {name: read(path, name) for name in used}
        except ValueError as error:
            way = "save objects as numbers or words: y.astype(int), y.astype(str)"
            raise ValueError(f"{path.absolute()}: {error}\n  {way}; a damaged file has to be made anew") from error
        others = [name for name in names if name not in used]
        self.notes = (f"left alone in the file: {', '.join(others)}",) if others else ()
        y = {split: arrays[name] for split, name in of_y.items() if split in of_x}
        if self.attributes is None:
            y = self._numbered({split: _whole(path, of_y[split], labels) for split, labels in y.items()})
        else:
            own = arrays[ATTRIBUTES].tolist() if ATTRIBUTES in arrays else None
            y = {split: self._rows(path, of_y[split], values, own) for split, values in y.items()}
        splits = {
            split: self._split(path, name, arrays[name], of_y.get(split), y.get(split)) for split, name in of_x.items()
        }
        if not of_factors:
            return splits
        words = arrays["factor_names"].tolist() if "factor_names" in arrays else None
        factors, self.factor_names, self.unordered = factors_of(
            {k: arrays[one] for k, one in of_factors.items()}, words
        )
        for split, values in factors.items():
            if len(values) != len(splits[split].y):
                raise ValueError(
                    f"{path}: {of_factors[split]} has {len(values)} rows, but {of_x[split]} has {len(splits[split].y)} "
                    "images: one each is needed"
                )
        return {split: replace(one, factors=factors.get(split)) for split, one in splits.items()}

    def own(self, path: Path, image_shape: Sequence[int], levels: Levels) -> Split:
        """The images x of another array file, named by their places in it; or a picture."""
        if path.suffix not in (".npy", ".npz"):
            return super().own(path, image_shape, levels)
        splits = NPZ(str(path.absolute()), image_shape, levels).load(path.parent)
        if len(splits) > 1:
            raise ValueError(f"it holds {', '.join(f'x_{name}' for name in splits)}: save the one that is meant as x")
        x = splits["train"].x
        return Split(x, torch.full((len(x),), -1), np.array([f"{path}[{i}]" for i in range(len(x))]))

    def _find(self, root: Path) -> Path:
        if self.path is None:
            raise FileNotFoundError("data.source.path is not given: data=npz reads the file data.source.path=FILE.npz")
        path = located(self.path, root)
        if not path.is_file():
            raise FileNotFoundError(
                f"data.source.path={self.path}: {path} is no file; data=image_folder is for pictures"
            )
        return path

    def _numbered(self, y: dict[str, Array]) -> dict[str, Array]:
        """Labels that are words as their places among all words of all splits."""
        if not any(labels.dtype.kind in "US" for labels in y.values()):
            return y
        words = sorted({str(word) for labels in y.values() for word in labels.astype(str)}, key=_as_number)
        self.notes = (*self.notes, f"labels: {', '.join(f'{k} is {word}' for k, word in enumerate(words[:20]))}")
        place = {word: k for k, word in enumerate(words)}
        return {split: np.array([place[word] for word in labels.astype(str)]) for split, labels in y.items()}

    def _rows(self, path: Path, name: str, y: Array, names: list[str] | None) -> Array:
        """Attributes, float32 `(N, A)`."""
        if y.ndim != 2:
            raise ValueError(f"{path}: {name} is of shape {y.shape}, but data.attributes needs rows (N, A)")
        return rows(frame_of(y, names), self.attributes or (), f"{path}: {name}").numpy()

    def _split(self, path: Path, name: str, x: Array, label: str | None, y: Array | None) -> Split:
        x = self._pixels(path, name, x)
        y = np.full(len(x), -1) if y is None else y
        y = y if y.ndim == 2 else y.astype(np.int64)
        if len(y) != len(x):
            raise ValueError(f"{path}: {label} has {len(y)} labels, but {name} has {len(x)} images: one each is needed")
        return Split(torch.from_numpy(x), torch.from_numpy(y))

    def _pixels(self, path: Path, name: str, x: Array) -> Array:
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
                f"{_shape_that_fits(x.shape)}"
            )
        if x.dtype == bool:
            return np.ascontiguousarray(x) * np.uint8(255)
        if self.levels == 2 and x.dtype.kind in "iuf" and ((x == 0) | (x == 1)).all():
            return np.ascontiguousarray(x == 1) * np.uint8(255)
        if x.dtype == np.uint8:
            if x.max() == 1 and self.levels != "count":
                raise ValueError(f"{path}: the bytes of {name} are 0 and 1, but white is 255: set data.levels=2")
            return np.ascontiguousarray(x)
        if x.dtype.kind in "iu" and isinstance(self.levels, int) and x.min() >= 0 and x.max() <= 255:
            return np.ascontiguousarray(x, np.uint8)
        if x.dtype.kind in "iu" and x.max() > MOST:
            raise ValueError(f"{path}: {name} goes up to {x.max()}; float32 holds whole numbers up to {MOST} exactly")
        if x.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} is {x.dtype}: a whole number, bool or float type is needed")
        return np.ascontiguousarray(x, np.float32)


def _no_image(image_shape: Sequence[int]) -> str:
    kind = ", a volume: the images here have two dimensions" if len(image_shape) == 4 else ""
    return f"data.image_shape={list(image_shape)}{kind}; [channels, height, width] is needed, such as [1,28,28]"


def _shape_that_fits(shape: tuple[int, ...]) -> str:
    """A way out for an array of another shape, where there is one."""
    if len(shape) == 5:
        return "\n  it holds volumes: the images here have two dimensions, so take slices of them"
    if len(shape) == 2:
        return f"\n  rows of numbers are images of one row: data.image_shape=[1,1,{shape[1]}]" if shape[0] else ""
    if len(shape) == 3:
        return f"\n  data.image_shape=[1,{shape[1]},{shape[2]}]"
    if len(shape) == 4:
        c, h, w = (shape[3], shape[1], shape[2]) if shape[3] in (1, 2, 3, 4) else shape[1:]
        return f"\n  data.image_shape=[{c},{h},{w}]"
    return ""


def _as_number(word: str) -> tuple[float, str]:
    """Words in alphabetical order, but numbers by their size."""
    return (float(word), word) if word.isdecimal() else (float("inf"), word)


def _whole(path: Path, name: str, y: Array) -> Array:
    """Labels as `(N,)` whole numbers, or words.

    Raises:
        ValueError: If they are neither; the message says the line that mends them.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        return y.argmax(axis=1)
    if y.ndim == 1 and (y.dtype.kind in "biuUS" or (y.dtype.kind == "f" and (y == np.floor(y)).all())):
        return y if y.dtype.kind in "US" else y.astype(np.int64)
    way = "y=y.argmax(axis=1) takes the largest of each row" if y.ndim == 2 else "y=y.astype(int) cuts off decimals"
    raise ValueError(
        f"{path}: {name} is {y.dtype} {y.shape}, whole numbers or words (N,) are needed, one for each image\n  {way}"
    )
