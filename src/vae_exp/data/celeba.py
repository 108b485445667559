"""CelebA (Liu, Luo, Wang & Tang, 2015, arXiv:1411.7766): faces of celebrities, aligned and cropped by its authors."""

import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from vae_exp.data.download import FileSet, corrupt, scratch_in
from vae_exp.data.files import fill
from vae_exp.data.picture import LARGEST, check_channels, content, decode
from vae_exp.data.representation import Levels
from vae_exp.data.split import Source, Split

ROWS = {"train": 162_770, "val": 19_867, "test": 19_962}
SIDE = 148  # pixels in the middle of 178 x 218: mostly the face, as in Larsen et al. (2016) and others
FOLDER = "img_align_celeba"


@final
class CelebA(Source):
    """Colour photographs without labels; they are decoded once, into files next to the distributor's.

    Args:
        image_shape: (C, H, W) that the middle (148, 148) is resized to, with C 1 for grey and 3 for colour.
    """

    files = FileSet(
        title="CelebA",
        names=("list_eval_partition.txt", f"{FOLDER}.zip"),
        folders=("celeba", ""),
        offline=f"from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, with a browser; or unpacked, as the folder {FOLDER}",
    )

    def __init__(self, image_shape: Sequence[int]) -> None:
        check_channels(image_shape)
        self.image_shape = tuple(image_shape)

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
        return {split: self._open(self._decoded(partition, split), rows) for split, rows in ROWS.items()}

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

    def _open(self, path: Path, rows: int) -> Split:
        try:
            pixels = np.load(path, mmap_mode="c")  # copied when written to: torch needs writable memory
        except (ValueError, EOFError) as error:
            raise corrupt(path, str(error)) from error
        if pixels.shape != (rows, *self.image_shape) or pixels.dtype != "uint8":
            raise corrupt(path, f"{pixels.dtype} {pixels.shape}, not uint8 {(rows, *self.image_shape)}")
        return Split(torch.from_numpy(pixels), torch.full((rows,), -1))


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
