"""A folder with pictures of the user."""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.files import InFiles, check_channels, memory
from vae_exp.data.split import AnySplit, Source

log = logging.getLogger("vae_exp")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@final
class ImageFolder(Source):
    """All pictures in a folder and its sub-folders, sorted by path, resized to one size.

    Sub-folders `train`, `val` and `test` are these splits. With labels, all pictures lie in `num_classes` folders, and
    the label of a picture is the position of its folder among them in alphabetical order.

    Args:
        path: The folder, absolute or below data.root.
        image_shape: (C, H, W), with C 1 for grey and 3 for colour.
        num_classes: Number of folders of pictures, or None for no labels.
        in_memory: True: all pictures are read before training. False: other processes read them during training.
            `auto`: True if they need at most a quarter of this machine's memory.
        workers: Number of these processes, at most the number of CPUs; 0 for none.
    """

    def __init__(
        self,
        path: str | None,
        image_shape: Sequence[int],
        num_classes: int | None,
        in_memory: Literal["auto"] | bool = "auto",
        workers: int = 4,
    ) -> None:
        check_channels(image_shape)
        if in_memory not in ("auto", True, False):
            raise ValueError(f"data.source.in_memory={in_memory}: choose auto, true or false")
        if workers < 0:
            raise ValueError(f"data.source.workers={workers}: 0 or more is needed")
        self.path = path
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.in_memory = in_memory
        self.workers = workers

    def fetch(self, root: Path) -> None:
        """Nothing to download."""
        self._folder(root)

    def load(self, root: Path) -> dict[str, AnySplit]:
        """Split "train", and "val" and "test" if there are such folders; no pixels are read yet."""
        folder = self._folder(root)
        splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
        if splits and "train" not in splits:
            raise ValueError(f"data.source.path: {folder} has a folder {splits[0]}, but no folder train")
        names = {split: _pictures(folder / split) for split in splits} or {"train": _pictures(folder)}
        for split, found in names.items():
            if not len(found):
                where = folder / split if splits else folder
                raise ValueError(f"data.source.path: no {', '.join(SUFFIXES)} in {where}")
        labels = self._labels(folder, names)
        size = sum(map(len, names.values())) * math.prod(self.image_shape)
        in_memory = size <= memory() / 4 if self.in_memory == "auto" else bool(self.in_memory)
        return {
            split: InFiles(
                folder / split if splits else folder, found, labels[split], self.image_shape, in_memory, self.workers
            )
            for split, found in names.items()
        }

    def _folder(self, root: Path) -> Path:
        if self.path is None:
            raise FileNotFoundError("data.source.path is not given: set data.source.path=/my/pictures")
        folder = (root / self.path).absolute()
        if not folder.is_dir():
            raise FileNotFoundError(f"data.source.path={self.path}: there is no folder {folder}")
        return folder

    def _labels(self, folder: Path, names: dict[str, npt.NDArray[np.str_]]) -> dict[str, Tensor]:
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


def _pictures(folder: Path) -> npt.NDArray[np.str_]:
    """Sorted paths of the pictures below a folder, without hidden files.

    Links to folders and files are followed, but each folder and each file is there once, under its own name if it has
    one below the folder: otherwise a link in a circle would give the same pictures again and again, in all splits.
    """
    found: dict[tuple[int, int], str] = {}
    folders, links, files = set(), [folder], []
    while links:
        for where, below, names in os.walk(links.pop(0)):
            if (identity := _identity(Path(where))) in folders:
                below.clear()
                continue
            folders.add(identity)
            links += [Path(where, name) for name in sorted(below) if Path(where, name).is_symlink()]
            files += [Path(where, name) for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        found.setdefault(_identity(path), path.relative_to(folder).as_posix())
    if len(found) < len(files):
        log.info("%s: %d links to pictures that are there already are left out", folder, len(files) - len(found))
    # An array, not a list: worker processes can share its memory, because it has no reference counts.
    return np.array(sorted(found.values()), dtype=np.str_)


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file or folder share."""
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"data.source.path: {path} cannot be read: {error.strerror}\n  take it away") from error
    return about.st_dev, about.st_ino
