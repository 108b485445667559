"""A folder of a user's own pictures."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.files import InFiles, check_channels
from vae_exp.data.split import AnySplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@final
class ImageFolder:
    """All pictures in a folder and below it, sorted by path, brought to one size.

    Sub-folders `train`, `val` and `test` are these splits. With labels, a picture's label is the place of its
    folder's name, in the alphabet, among the `num_classes` folders that then hold all pictures.

    Args:
        path: the folder, absolute or below data.root.
        image_shape: (C, H, W), with C 1 for grey and 3 for colour.
        num_classes: folders of pictures, or None for no labels.
        in_memory: whether they are read before training, or by other processes while it goes on; `auto` reads them
            where they take a quarter of this machine's memory at most.
        workers: these processes; as many as there are CPUs at most, 0 for none.
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
        """Split "train", and "val" and "test" where there are such folders; their pixels are still unread."""
        folder = self._folder(root)
        splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
        if splits and "train" not in splits:
            raise ValueError(f"data.source.path: {folder} has a folder {splits[0]}, but none called train")
        names = {split: _pictures(folder / split) for split in splits} or {"train": _pictures(folder)}
        for split, found in names.items():
            if not len(found):
                where = folder / split if splits else folder
                raise ValueError(f"data.source.path: no {', '.join(SUFFIXES)} in {where}")
        labels = self._labels(folder, names)
        size = sum(map(len, names.values())) * math.prod(self.image_shape)
        in_memory = size <= _memory() / 4 if self.in_memory == "auto" else bool(self.in_memory)
        return {
            split: InFiles(
                folder / split if splits else folder, found, labels[split], self.image_shape, in_memory, self.workers
            )
            for split, found in names.items()
        }

    def _folder(self, root: Path) -> Path:
        if self.path is None:
            raise FileNotFoundError("data.source.path is not given: data.source.path=/my/pictures says where they are")
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
                        f"data.num_classes={self.num_classes} takes the label from a picture's folder, "
                        f"but {name} is not in one level of folders in {folder}; data.num_classes=null has no labels"
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
    """Paths of the pictures below a folder, sorted; hidden files are left out."""
    found = [
        Path(where, name).relative_to(folder).as_posix()
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    # An array, not a list: worker processes share its memory, for nobody counts references in it.
    return np.array(sorted(found), dtype=np.str_)


def _memory() -> int:
    """Bytes of this machine, not those that are free just now: a run decides the same at each start."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
