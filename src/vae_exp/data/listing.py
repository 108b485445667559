"""What lies in a folder of pictures: each file once, in its split, and how many files are left out, and why."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Listing", "listing", "split_of"]

# Formats that Pillow hands on to a program of the machine, or only knows by name.
UNREAD = ("EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR", "IPTC")
SEVERAL_FRAMES = (".gif", ".apng", ".webp", ".tif", ".tiff")  # what a file of this kind may hold
NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development", "eval"),
    "test": ("test", "testing", "tst"),
}
AFTER = r"(?:[ _-]?(?:set|data|images|imgs|split))?"  # what may follow: test_set


class Listing(NamedTuple):
    """The files of a folder.

    Arguments:
        splits: By split, the folder of the split and the paths of its pictures below it, sorted.
        left_out: By reason, the number of files that are left out.
        notes: What else is to be said of them.
    """

    splits: dict[str, tuple[Path, list[str]]]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def listing(folder: Path) -> Listing:
    """All pictures in a folder and its sub-folders, and the splits that these are.

    Links to folders and files are followed, but each folder and each file is there once, under its own name if it has
    one below the folder: otherwise a link in a circle would give the same pictures again and again, in all splits.

    Raises:
        ValueError: If a file or folder cannot be read, or sub-folders look like splits but are none.
    """
    left_out: Counter[str] = Counter()
    found: dict[tuple[int, int], str] = {}
    pictures = []
    for path in _files(folder):
        if any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts):
            left_out["hidden"] += 1
        elif path.suffix.lower() in suffixes():
            pictures.append(path)
        else:
            left_out[path.suffix.lower() or "without a suffix"] += 1
    for path in sorted(pictures, key=lambda path: (path.is_symlink(), path)):
        known = found.setdefault(_identity(path), path.relative_to(folder).as_posix())
        left_out["links to others of them"] += known != path.relative_to(folder).as_posix()
    splits = _splits(folder)
    of_split: dict[str, list[str]] = {split: [] for split in splits} or {"train": []}
    for name in sorted(found.values()):
        top, _, below = name.partition("/")
        split = next((split for split, own in splits.items() if own == top and below), None)
        if split:
            of_split[split].append(below)
        elif splits:
            left_out[f"in {top}/, which is no split" if below else "beside the splits"] += 1
        else:
            of_split["train"].append(name)
    if not splits:
        _check_inner(folder, of_split["train"])
    framed = Counter(Path(name).suffix.lower() for names in of_split.values() for name in names)
    frames = [f"{framed[suffix]} {suffix}" for suffix in SEVERAL_FRAMES if framed[suffix]]
    notes = (f"the first frame of {', '.join(frames)}, if there are several",) if frames else ()
    where = {split: (folder / splits[split] if splits else folder, names) for split, names in of_split.items()}
    return Listing(where, {reason: n for reason, n in left_out.most_common() if n}, notes)


@cache
def suffixes() -> frozenset[str]:
    """Of all formats that Pillow reads by itself."""
    from PIL import Image

    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in known if kind in Image.OPEN and kind not in UNREAD)


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, without going twice through one."""
    folders, links = set(), [folder]
    while links:
        for where, below, names in os.walk(links.pop(0), onerror=_refuse):
            if (identity := _identity(Path(where))) in folders:
                below.clear()
                continue
            folders.add(identity)
            links += [Path(where, name) for name in sorted(below) if Path(where, name).is_symlink()]
            yield from (Path(where, name) for name in names)


def _refuse(error: OSError) -> None:
    raise ValueError(f"data.source.path: {error.filename} cannot be read: {error.strerror}\n  take it away") from error


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file or folder share."""
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture: {error.strerror}\n  mend it or take it away") from error
    return about.st_dev, about.st_ino


def split_of(name: str) -> str | None:
    """The split that a folder of this name is."""
    for split, names in NAMES.items():
        if re.fullmatch(f"(?:{'|'.join(names)}){AFTER}", name.lower()):
            return split
    return None


def _splits(folder: Path) -> dict[str, str]:
    """By split, its sub-folder.

    Raises:
        ValueError: If one is there twice, there is none to train on, or names look like splits in another form.
    """
    tops = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found: dict[str, str] = {}
    for name in tops:
        if split := split_of(name):
            if split in found:
                raise ValueError(
                    f"data.source.path: {folder} has two folders for the split {split}, {found[split]} and {name}\n"
                    "  rename one of them"
                )
            found[split] = name
    if found and "train" not in found:
        first = next(iter(found.values()))
        raise ValueError(
            f"data.source.path: {folder} has a folder {first}, but no folder train\n"
            f"  name that of the training images train, or give {first} another name if it is no split"
        )
    alike = [name for name in tops if not found and _words(name)]
    if len({word for name in alike for word in _words(name)}) > 1:
        raise ValueError(
            f"data.source.path: {', '.join(alike)} in {folder} look like splits\n"
            "  name them train, val and test, or otherwise if they are none"
        )
    return {split: found[split] for split in NAMES if split in found}


def _words(name: str) -> set[str]:
    """The splits that are named within a name, such as seg_train."""
    return {split for word in re.split(r"[\W_]+", name.lower()) for split, names in NAMES.items() if word in names}


def _check_inner(folder: Path, names: list[str]) -> None:
    """Refuses splits that lie deeper: they would be pooled."""
    inner = {part for name in names for part in name.split("/")[1:-1] if split_of(part)}
    if len({split_of(part) for part in inner}) > 1:
        example = next(name for name in names if inner & set(name.split("/")[1:-1]))
        raise ValueError(
            f"data.source.path: {', '.join(sorted(inner))} look like splits, but lie deeper in {folder}: {example}\n"
            "  give the folder that holds them, or lay them out as train/CLASS/..., val/CLASS/..., test/CLASS/..."
        )
