"""Arrays in the user's files, .npz and .npy, read one by one: the others stay unread. Of heavy ones, imports numpy."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["SPLITS", "arrays_of", "has_rows", "levels_for", "levels_of", "names_of", "range_of", "read"]

SPLITS = ("train", "val", "test")
ONE = "x"  # the name of the array of an .npy file
FAR = 1 << 22  # bytes that are read at a time
# Smallest and largest number, whether all are 0 or 1, and whether it is an array of floats.
Range = tuple[float, float, bool, bool]


def names_of(path: Path) -> list[str]:
    """The names of the arrays in a file, whatever they hold.

    Raises:
        ValueError: If it is no file of arrays.
    """
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return [ONE]
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"not an .npz or .npy file of arrays ({error})") from error


def arrays_of(names: list[str], kind: Literal["x", "y"]) -> dict[str, str]:
    """By split, the name of the array of images (`x`) or of labels (`y`), also by MedMNIST's names and in capitals.

    An array whose name is that of no split is of train.
    """
    word = {"x": "images", "y": "labels"}[kind]
    known = {name.lower(): name for name in reversed(names)}
    found = {}
    for split in SPLITS:
        forms = (f"{kind}_{split}", f"{split}_{word}", f"{word}_{split}")
        found[split] = next((known[name] for name in forms if name in known), "")
    alone = next((known[name] for name in (kind, word) if name in known), "")
    return {"train": alone} if alone and not any(found.values()) else {s: name for s, name in found.items() if name}


def read(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of a file.

    Raises:
        ValueError: If it holds objects, which would be run as code, or is damaged.
    """
    try:
        with _stream(path, name) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # numpy's parser raises errors of many types, for a pickle a ValueError
        raise ValueError(f"{name} is no plain array ({type(error).__name__}: {error})") from error


def size(path: Path, name: str) -> int:
    """The bytes of an array, which may be much larger than its file."""
    if names_of(path) == [ONE] and not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name).file_size


def has_rows(path: Path) -> bool:
    """Whether an array of labels in a file has two dimensions; no more of it is read. False if it cannot be read."""
    try:
        for name in arrays_of(names_of(path), "y").values():
            with _stream(path, name) as stream:
                if len(_header(stream)[0]) == 2:
                    return True
    except Exception:  # of many types, see `read`
        return False
    return False


def levels_of(path: Path) -> int | str | None:
    """What `data.levels` is for the images of a file: 2 if all are 0 or 1, `unit` for other numbers in [0, 1], 256 for
    bytes, None for any other numbers. A file that cannot be read has 256; the source says what is wrong with it."""
    about = path.stat()
    return _levels_of(path, about.st_size, about.st_mtime_ns)


@cache  # a config is composed several times
def _levels_of(path: Path, size: int, time: int) -> int | str | None:
    try:
        return levels_for([_range(path, name) for name in arrays_of(names_of(path), "x").values()])
    except Exception:  # of many types, see `read`
        return 256


def levels_for(found: Sequence[Range]) -> int | str | None:
    """What `levels_of` says of a file whose arrays have these ranges."""
    if all(are_bits for _, _, are_bits, _ in found):
        return 2
    if not all(is_real for *_, is_real in found):
        return 256
    return "unit" if all(low >= 0 and high <= 1 for low, high, *_ in found) else None


def range_of(x: npt.NDArray[Any]) -> Range:
    """The range of an array in memory."""
    return float(x.min()), float(x.max()), bool(((x == 0) | (x == 1)).all()), x.dtype.kind == "f"


def _range(path: Path, name: str) -> Range:
    """The range of an array in a file, of which no more is read than is needed."""
    with _stream(path, name) as stream:
        _, _, dtype = _header(stream)
        is_real = dtype.kind == "f"
        if dtype.kind == "b":
            return 0, 1, True, False
        if dtype.kind not in "iuf":
            raise ValueError(name)
        low, high, are_bits = np.inf, -np.inf, True
        for part in iter(lambda: stream.read(FAR // dtype.itemsize * dtype.itemsize), b""):
            numbers = np.frombuffer(part, dtype)
            are_bits = are_bits and bool(((numbers == 0) | (numbers == 1)).all())
            low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
            if not are_bits and not (is_real and low >= 0 and high <= 1):
                break
        return low, high, are_bits, is_real


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read_header: Callable[..., Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version, np.lib.format.read_array_header_2_0)
    return read_header(stream)


@contextmanager
def _stream(path: Path, name: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            yield file
            return
    with zipfile.ZipFile(path) as archive:
        member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
        with archive.open(member) as stream:
            yield stream
