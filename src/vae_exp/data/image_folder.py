"""A folder with pictures of the user."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.attributes import CSV, rows_of_pictures
from vae_exp.data.files import InFiles, memory
from vae_exp.data.listing import listing
from vae_exp.data.picture import check_channels, content, decode
from vae_exp.data.representation import Levels
from vae_exp.data.split import AnySplit, Source
from vae_exp.paths import located

REAL = 4  # bytes of a float


@final
class ImageFolder(Source):
    """All pictures in a folder and its sub-folders, sorted by path, resized to one size.

    Sub-folders `train`, `val` and `test` are these splits, also by names such as `valid` or `test_set`. With
    labels, all pictures lie in `num_classes` folders, and the label of a picture is the position of its folder among
    them in alphabetical order. Files that Pillow does not read, and hidden ones, are left out and counted.

    Args:
        path: The folder: absolute, from the current folder, or below data.root.
        image_shape: (C, H, W), with C 1 for grey and 3 for colour.
        num_classes: Number of folders of pictures, or None for no labels.
        in_memory: True: all pictures are read before training. False: other processes read them during training.
            `auto`: True if they need at most a quarter of this machine's memory.
        workers: Number of these processes, at most the number of CPUs; 0 for none.
        background: The colour that is seen where a picture is transparent.
        label: The columns of attributes.csv in the folder that are y; None: all, if there is such a file.
        attributes: What these columns are, see `vae_exp.conditions.Attributes`; None: y is no attributes.
        levels: A number: pixels are bytes. `unit` or None: real numbers, also of pictures with 16 bits.
    """

    def __init__(
        self,
        path: str | None,
        image_shape: Sequence[int],
        num_classes: int | None,
        in_memory: Literal["auto"] | bool = "auto",
        workers: int = 4,
        background: str = "black",
        levels: Levels = 256,
        label: str | Sequence[str] | None = None,
        attributes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        check_channels(image_shape, background)
        if in_memory not in ("auto", True, False):
            raise ValueError(f"data.source.in_memory={in_memory}: choose auto, true or false")
        if workers < 0:
            raise ValueError(f"data.source.workers={workers}: 0 or more is needed")
        self.path = path
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.in_memory = in_memory
        self.workers = workers
        self.background = background
        self.levels = levels
        self.label, self.attributes = label, attributes

    def fetch(self, root: Path) -> None:
        """Nothing to download."""
        self._folder(root)

    def load(self, root: Path) -> dict[str, AnySplit]:
        """Split "train", and "val" and "test" if there are such folders; no pixels are read yet."""
        folder = self._folder(root)
        found = listing(folder)
        self.left_out, self.notes = found.left_out, found.notes
        for where, names in found.splits.values():
            if not names:
                others = "".join(f"\n  left out: {n} {reason}" for reason, n in list(found.left_out.items())[:3])
                raise ValueError(
                    f"data.source.path: no .jpg, .png or other picture that Pillow reads in {where}{others}"
                )
        if self.attributes is not None:
            pictures = {split: [where / name for name in names] for split, (where, names) in found.splits.items()}
            labels, note = rows_of_pictures(folder, pictures, self.attributes)
            self.notes = (*self.notes, note)
            kept = found.left_out | {".csv": found.left_out.get(".csv", 1) - 1}
            self.left_out = {reason: number for reason, number in kept.items() if number > 0}
        elif self.label is not None:
            raise ValueError(f"data.source.label={self.label}: there is no {CSV} in {folder}")
        else:
            labels = self._labels(folder, {split: names for split, (_, names) in found.splits.items()})
        size = sum(len(names) for _, names in found.splits.values()) * math.prod(self.image_shape)
        size *= 1 if isinstance(self.levels, int) else REAL
        in_memory = size <= memory() / 4 if self.in_memory == "auto" else bool(self.in_memory)
        return {
            split: InFiles(
                where,
                # An array, not a list: worker processes can share its memory, because it has no reference counts.
                np.array(names, dtype=np.str_),
                labels[split],
                self.image_shape,
                in_memory,
                self.workers,
                self.background,
                self.levels,
            )
            for split, (where, names) in found.splits.items()
        }

    def picture(self, path: Path, image_shape: Sequence[int], levels: Levels) -> npt.NDArray[Any]:
        """A file of the user, on the same background."""
        return decode(content(path), str(path), image_shape, background=self.background, levels=levels)

    def _folder(self, root: Path) -> Path:
        if self.path is None:
            raise FileNotFoundError("data.source.path is not given: set data.source.path=/my/pictures")
        folder = located(self.path, root)
        if not folder.is_dir():
            raise FileNotFoundError(f"data.source.path={self.path}: {folder} is no folder")
        return folder

    def _labels(self, folder: Path, names: dict[str, list[str]]) -> dict[str, Tensor]:
        if self.num_classes is None:
            return {split: torch.full((len(found),), -1) for split, found in names.items()}
        for found in names.values():
            for name in found:
                if name.count("/") != 1:
                    raise ValueError(
                        f"data.num_classes={self.num_classes} takes the label of a picture from its folder, "
                        f"but {name} is not exactly one folder below {folder}; data.num_classes=null for no labels"
                    )
        classes = sorted({name.split("/")[0] for found in names.values() for name in found})
        if len(classes) != self.num_classes:
            some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
            raise ValueError(
                f"data.num_classes={self.num_classes}, but {folder} has {len(classes)} folders of pictures: {some}"
            )
        place = {name: k for k, name in enumerate(classes)}
        return {split: torch.tensor([place[name.split("/")[0]] for name in found]) for split, found in names.items()}
