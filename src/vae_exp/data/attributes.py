"""Rows of attributes y, from arrays and tables of the user: what each column is, and the row as numbers."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.arrays import arrays_of, names_of, read
from vae_exp.columns import columns_of
from vae_exp.config import ConfigError
from vae_exp.data.schema import codes, found, read_table

__all__ = [
    "CSV",
    "attributes_in",
    "attributes_of",
    "factors_of",
    "frame_of",
    "is_rows",
    "rows",
    "rows_of_pictures",
]

Array = npt.NDArray[Any]
CSV = "attributes.csv"  # of a folder of pictures
NAMES = "attributes"  # of the array that names the columns of y


def is_rows(y: Array) -> bool:
    """Whether an array is of attributes, `(N, A)`: not of labels in a column, nor one-hot."""
    if y.ndim != 2 or not y.size:
        return False
    are_bits = y.dtype.kind in "biuf" and bool(((y == 0) | (y == 1)).all())
    if y.shape[1] == 1:
        return y.dtype.kind == "f" and bool((y != np.floor(y)).any())
    return not (are_bits and bool((y.sum(axis=1) == 1).all()))


def frame_of(y: Array, names: Sequence[str] | None, word: str = "y") -> Any:
    """Rows `(N, A)` as a DataFrame; words that are all numbers become numbers.

    Raises:
        ValueError: If there is not one name for each column.
    """
    import pandas as pd

    names = [f"{word}{d}" for d in range(y.shape[1])] if names is None else [str(name) for name in names]
    if len(names) != y.shape[1] or len(set(names)) < len(names):
        raise ValueError(f"there are {len(set(names))} names, but {word} has {y.shape[1]} columns: one each is needed")
    columns = {name: y[:, d].astype(str) if y.dtype.kind in "US" else y[:, d] for d, name in enumerate(names)}
    frame = pd.DataFrame(columns)
    for name in frame if y.dtype.kind in "US" else ():
        numbers = pd.to_numeric(frame[name].where(frame[name] != "nan"), errors="coerce")
        if (numbers.isna() == frame[name].isin(["nan", ""])).all():
            frame[name] = numbers
    return frame


def rows(frame: Any, attributes: Sequence[Mapping[str, Any]], where: str) -> Tensor:
    """Attributes of a DataFrame as float32 `(N, A)`, a category as its place; nan where an entry is missing.

    Raises:
        ValueError: If a column is missing, or holds what it should not; the message begins with `where`.
    """
    each = []
    for one in columns_of(attributes):
        if one.name not in frame:
            raise ValueError(f"{where} has no attribute {one.name!r}, which data.attributes names")
        values = frame[one.name]
        try:
            numbers = codes(one.name, values, one.categories) if one.categories else values.to_numpy(np.float64)
        except ValueError as error:
            raise ValueError(f"{where}: attribute {one.name!r} is {one.kind}: {error}") from error
        each.append(numbers)
    return torch.from_numpy(np.stack(each, axis=1).astype(np.float32))


def factors_of(
    arrays: Mapping[str, Array], names: Sequence[str] | None
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Factors of variation `(N, F)` by split, their names, and the names of those whose values are words.

    Raises:
        ValueError: If they are no rows, or entries are missing; the message says of which array.
    """
    for name, values in arrays.items():
        if values.ndim != 2:
            raise ValueError(f"the factors of {name} are {values.shape}, but (N, F) is needed, a row for each image")
    frames = {split: frame_of(values, names, "factor") for split, values in arrays.items()}
    columns = found(_together(frames.values()))
    given = {split: rows(frame, columns, f"the factors of {split}") for split, frame in frames.items()}
    for split, each in given.items():
        if each.isnan().any():
            raise ValueError(f"the factors of {split}: some entries are missing")
    unordered = tuple(one["name"] for one in columns if one["kind"] == "categorical")
    return given, tuple(one["name"] for one in columns), unordered


def _together(frames: Iterable[Any]) -> Any:
    import pandas as pd

    return pd.concat(list(frames), ignore_index=True)


def attributes_in(folder: Path, label: str | Sequence[str] | None) -> list[dict[str, Any]]:
    """What the columns of attributes.csv in a folder of pictures are, all or those of `label`.

    Raises:
        ConfigError: If it cannot be read, or has no such column.
    """
    try:
        frame = read_table(folder / CSV)
        return found(frame.iloc[:, 1:], [label] if isinstance(label, str) else label)
    except ValueError as error:
        raise ConfigError(f"data.source.label: {folder / CSV}: {error}") from error


def rows_of_pictures(
    folder: Path, names: Mapping[str, Sequence[Path]], attributes: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Tensor], str]:
    """The rows of attributes.csv that belong to pictures, `(N, A)` by split, and a note of what there is.

    The first column names a picture by its path below the folder, its path below the folder of its split, or its name
    alone.

    Arguments:
        folder: The folder of the file.
        names: By split, the pictures.
        attributes: Those in y.

    Raises:
        ValueError: If a picture has no row, or two rows have one name.
    """
    frame = read_table(folder / CSV)
    keys = [str(key) for key in frame.iloc[:, 0]]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{folder / CSV} has two rows of {twice}")
    place = {key: i for i, key in enumerate(keys)}
    chosen = {split: [_row(path, folder, place) for path in paths] for split, paths in names.items()}
    for split, found_rows in chosen.items():
        if missing := [path for path, row in zip(names[split], found_rows, strict=True) if row is None]:
            raise ValueError(
                f"{folder / CSV} has no row for {missing[0].relative_to(folder)} ({len(missing)} of {len(found_rows)} "
                "pictures): its first column names the file"
            )
    given = {split: rows(frame.iloc[found_rows], attributes, CSV) for split, found_rows in chosen.items()}
    spare = len(keys) - len({row for found_rows in chosen.values() for row in found_rows})
    words = f", {spare} rows of no picture" if spare else ""
    return given, f"{CSV}: {', '.join(str(one['name']) for one in attributes)}{words}"


def _row(path: Path, folder: Path, place: Mapping[str, int]) -> int | None:
    """The row of a picture; its path may leave out folders from the left."""
    parts = path.relative_to(folder).parts
    return next((place[key] for i in range(len(parts)) if (key := "/".join(parts[i:])) in place), None)


def attributes_of(path: Path) -> list[dict[str, Any]] | None:
    """What the columns of y in a file of arrays are, for `data.attributes`; None if y is of labels, or cannot be read:
    the source says what is wrong with it."""
    about = path.stat()
    return _attributes_of(path, about.st_size, about.st_mtime_ns)


@cache  # a config is composed several times
def _attributes_of(path: Path, size: int, time: int) -> list[dict[str, Any]] | None:
    try:
        names = names_of(path)
        each = [read(path, name) for name in arrays_of(names, "y").values()]
        if not any(is_rows(y) for y in each):
            return None
        return found(frame_of(np.concatenate(each), read(path, NAMES).tolist() if NAMES in names else None))
    except Exception:  # of many types, see `vae_exp.arrays.read`
        return None
