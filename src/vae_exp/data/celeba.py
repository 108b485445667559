"""CelebA (Liu, Luo, Wang & Tang, 2015, arXiv:1411.7766): faces of celebrities, aligned and cropped by its authors."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.data.download import FileSet, corrupt, scratch_in
from vae_exp.data.files import fill
from vae_exp.data.picture import LARGEST, check_channels, content, decode
from vae_exp.data.representation import Levels
from vae_exp.data.split import Source, Split

ROWS = {"train": 162_770, "val": 19_867, "test": 19_962}
SIDE = 148  # pixels in the middle of 178 x 218: mostly the face, as in Larsen et al. (2016) and others
FOLDER = "img_align_celeba"
LIST = "list_attr_celeba.txt"
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip


@final
class CelebA(Source):
    """Colour photographs, with some of their 40 attributes or without; they are decoded once, into files next to the
    distributor's.

    Args:
        label: `all`, or the names of attributes, which are y: 1 for yes, 0 for no; None for no labels.
        attributes: The same as columns, see `vae_exp.conditions.Attributes`.
        image_shape: (C, H, W) that the middle (148, 148) is resized to, with C 1 for grey and 3 for colour.
    """

    files = FileSet(
        title="CelebA",
        names=("list_eval_partition.txt", f"{FOLDER}.zip"),
        folders=("celeba", ""),
        offline=f"from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, with a browser; or unpacked, as the folder {FOLDER}",
    )

    def __init__(
        self,
        image_shape: Sequence[int],
        label: str | Sequence[str] | None = None,
        attributes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        check_channels(image_shape)
        if unknown := [one["name"] for one in attributes or () if one["name"] not in ATTRIBUTES]:
            raise ValueError(f"data.source.label={unknown[0]}: choose all, or of {', '.join(ATTRIBUTES)}")
        self.image_shape = tuple(image_shape)
        self.label, self.attributes = label, attributes

    def fetch(self, root: Path) -> None:
        """Decode the pictures unless that is done; nothing is downloaded, because the page needs a browser."""
        partition, pictures = self._find(root)
        splits = _partition(partition)
        missing = {split: names for split, names in splits.items() if not self._decoded(partition, split).is_file()}
        if not missing:
            return
        read = _reader(pictures, [name for names in missing.values() for name in names])
        with scratch_in(partition.parent) as scratch:
            for split, names in missing.items():
                part, target = scratch / split, self._decoded(partition, split)
                shape = (len(names), *self.image_shape)
                pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
                fill(pixels, partial(self._picture, read, names), f"CelebA, {split}")
                pixels.flush()
                part.replace(target)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train", "val" and "test", image_shape; their pixels are read from the disk when they are used."""
        self.fetch(root)
        partition, _ = self._find(root)
        y = {split: torch.full((rows,), -1) for split, rows in ROWS.items()}
        if self.attributes is not None:
            every = _attributes(partition.parent / LIST)
            chosen = [ATTRIBUTES.index(one["name"]) for one in self.attributes]
            y = {split: _rows(every, names)[:, chosen] for split, names in _partition(partition).items()}
        return {split: self._open(self._decoded(partition, split), y[split]) for split in ROWS}

    def picture(self, path: Path, image_shape: Sequence[int], levels: Levels) -> npt.NDArray[Any]:
        """The middle of a file of the user."""
        return decode(content(path), str(path), image_shape, SIDE, levels=levels)

    def _find(self, root: Path) -> tuple[Path, Path]:
        """The partition and the pictures, packed or unpacked."""
        for folder in self.files.folders:
            partition, unpacked = root / folder / self.files.names[0], root / folder / FOLDER
            if partition.is_file() and unpacked.is_dir():
                return partition, unpacked
        partition, archive = self.files.find(root)
        return partition, archive

    def _decoded(self, partition: Path, split: str) -> Path:
        return partition.parent / f"celeba_{split}_{'x'.join(map(str, self.image_shape))}.npy"

    def _picture(self, read: Callable[[str], bytes], names: list[str], i: int) -> npt.NDArray[np.uint8]:
        return decode(read(names[i]), f"{FOLDER}/{names[i]}", self.image_shape, SIDE)

    def _open(self, path: Path, y: Tensor) -> Split:
        try:
            pixels = np.load(path, mmap_mode="c")  # copied when written to: torch needs writable memory
        except (ValueError, EOFError) as error:
            raise corrupt(path, str(error)) from error
        if pixels.shape != (len(y), *self.image_shape) or pixels.dtype != "uint8":
            raise corrupt(path, f"{pixels.dtype} {pixels.shape}, not uint8 {(len(y), *self.image_shape)}")
        return Split(torch.from_numpy(pixels), y)


def _attributes(path: Path) -> dict[str, list[float]]:
    """The number of pictures, the names of the attributes, and lines `000001.jpg -1 1 ...` -> by picture 0 or 1."""
    if not path.is_file():
        raise FileNotFoundError(f"data.source.label: {path} is missing; get it with the other files of CelebA")
    number, names, *lines = path.read_text().splitlines()
    if names.split() != list(ATTRIBUTES) or len(lines) != int(number):
        raise corrupt(path, f"not {len(ATTRIBUTES)} known attributes of {number} pictures")
    each = (line.split() for line in lines)
    found = {name: [float(value == "1") for value in values] for name, *values in each if set(values) <= {"1", "-1"}}
    if len(found) < len(lines) or any(len(values) != len(ATTRIBUTES) for values in found.values()):
        raise corrupt(path, "not lines of a name and 40 numbers -1 or 1")
    return found


def _rows(every: dict[str, list[float]], names: list[str]) -> Tensor:
    if missing := [name for name in names if name not in every]:
        raise ValueError(f"{LIST} has no line for {missing[0]} ({len(missing)} of {len(names)} pictures)")
    return torch.tensor([every[name] for name in names])


def _partition(path: Path) -> dict[str, list[str]]:
    """Lines `000001.jpg 0` -> the names of each split: 0, 1 and 2 are train, val and test."""
    splits: dict[str, list[str]] = {split: [] for split in ROWS}
    try:
        for line in path.read_text().splitlines():
            name, number = line.split()
            list(splits.values())[(0, 1, 2).index(int(number))].append(name)
    except ValueError as error:
        raise corrupt(path, "not lines of a name and 0, 1 or 2") from error
    counts = {split: len(names) for split, names in splits.items()}
    if counts != ROWS:
        raise corrupt(path, f"{counts}, not {ROWS}")
    return splits


def _reader(pictures: Path, names: list[str]) -> Callable[[str], bytes]:
    """A function that reads a file of the folder or of the archive."""
    if pictures.is_dir():
        return lambda name: (pictures / name).read_bytes()
    try:
        archive = zipfile.ZipFile(pictures)
    except zipfile.BadZipFile as error:
        raise corrupt(pictures, f"does not unzip ({error})") from error
    missing = {f"{FOLDER}/{name}" for name in names}.difference(archive.namelist())
    if missing:
        raise corrupt(pictures, f"{len(missing)} pictures are not in it, for example {min(missing)}")

    def read(name: str) -> bytes:
        if archive.getinfo(f"{FOLDER}/{name}").file_size > LARGEST:
            raise corrupt(pictures, f"{name} unzips to more than {LARGEST:,} bytes")
        try:
            return archive.read(f"{FOLDER}/{name}")
        except Exception as error:  # zipfile and zlib raise errors of several types
            raise corrupt(pictures, f"{name} does not unzip ({error})") from error

    return read
