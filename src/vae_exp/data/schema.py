"""What the columns of a file hold: found by type, and changed by the user."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["MOST_CATEGORIES", "codes", "found", "read_table", "schema_of"]

MOST_CATEGORIES = 200
EXACT = 2**24  # the whole numbers that float32 holds


def schema_of(path: Path, kinds: Mapping[str, str], label: str | Sequence[str] | None) -> dict[str, Any]:
    """The columns of a table as plain data, for `config.yaml`.

    Whole numbers from 0 on are counts, 0 and 1 alone are binary, other numbers are real; texts, bools and dates are
    categories.

    Arguments:
        path: The file.
        kinds: By column, a kind in place of the one that was found, or `none` to leave the column out.
        label: The column of the labels, or a list of columns, attributes; these are no columns of x.

    Returns:
        `columns`, see `vae_exp.columns.columns_of`; `labels`, the categories of the label or None; `attributes`, what
        the columns of a list are, or None; and `rows`, their number.

    Raises:
        ValueError: If a column does not exist, or cannot be of its kind.
    """
    frame = read_table(path)
    told = [] if label is None else [label] if isinstance(label, str) else list(label)
    for name in [*kinds, *told]:
        if name not in frame:
            key = "label" if name in told else "kinds"
            raise ValueError(f"data.source.{key}: {path} has no column {name!r}; it has {_listed(frame.columns)}")
    columns = [
        _column(name, frame[name], kinds.get(name)) for name in frame if name not in told and kinds.get(name) != "none"
    ]
    labels = _categories(label, frame[label]) if isinstance(label, str) else None
    attributes = None if label is None or isinstance(label, str) else found(frame, told, kinds)
    return {"columns": columns, "labels": labels, "attributes": attributes, "rows": len(frame)}


def found(frame: Any, names: Sequence[str] | None = None, kinds: Mapping[str, str] = {}) -> list[dict[str, Any]]:
    """What columns of a DataFrame are, for `data.attributes`; see `vae_exp.data.schema.schema_of`.

    A column of 0 and 1 is binary, other numbers are real, texts are categories. (-1 and 1, as CelebA has them, are
    binary, too, if a source says so.)

    Raises:
        ValueError: If a column does not exist, or cannot be of its kind.
    """
    names = list(frame) if names is None else names
    if unknown := [name for name in names if name not in frame]:
        raise ValueError(f"no attribute {unknown[0]!r}; there are {', '.join(map(str, list(frame)[:40]))}")
    each = [_column(name, frame[name], kinds.get(name)) for name in names]
    return [{**one, "kind": "real" if one["kind"] in ("count", "positive") else one["kind"]} for one in each]


def read_table(path: Path) -> Any:
    """A CSV or Parquet file as a DataFrame of pandas.

    Raises:
        ValueError: If it is not such a file, has no rows, or two columns of one name.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, _: int) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else pd.read_csv(path)
    except ImportError as error:
        raise ValueError(
            f"{path}: pandas needs pyarrow to read Parquet: pip install pyarrow, or save it as CSV"
        ) from error
    except Exception as error:  # the parsers raise errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no table that pandas reads ({reason})") from error
    frame.columns = [str(name) for name in frame.columns]
    if not len(frame) or frame.columns.has_duplicates:
        raise ValueError(f"{path}: {'two columns have the same name' if len(frame) else 'there are no rows'}")
    return frame


def codes(name: str, values: Any, categories: Sequence[Any]) -> Any:
    """The place of each value of a column among the categories, float64 `(N,)`, nan where it is missing.

    Raises:
        ValueError: If a value is none of them.
    """
    import numpy as np

    places = {str(category): place for place, category in enumerate(categories)}
    is_number = values.dtype.kind == "f"
    texts = [str(int(v)) if is_number and v == v and float(v).is_integer() else str(v) for v in values]
    unknown = sorted({text for text, gone in zip(texts, values.isna(), strict=True) if not gone and text not in places})
    if unknown:
        raise ValueError(f"column {name!r} holds {unknown[0]!r}, which is none of the categories of the run")
    return np.array([np.nan if gone else places[text] for text, gone in zip(texts, values.isna(), strict=True)])


def _column(name: str, values: Any, kind: str | None) -> dict[str, Any]:
    """What a column is, as plain data.

    Raises:
        ValueError: If it is empty, or cannot be of the kind.
    """
    import pandas as pd

    present = values.dropna()
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    kind = kind or (_kind_of(present) if is_number else "categorical")
    found: dict[str, Any] = {"name": _plain(name, name), "kind": kind}
    if not len(present):
        raise ValueError(f"column {name!r} is empty: leave it out with {_key(name)}")
    if kind == "categorical":
        found["categories"] = _categories(name, present)
    elif not is_number:
        raise ValueError(f"data.source.kinds: column {name!r} is {kind}, but it holds {present.iloc[0]!r}")
    if len(present) < len(values):
        found["missing"] = True
    return found


def _kind_of(present: Any) -> str:
    is_whole = bool((present % 1 == 0).all()) and (present.dtype.kind != "f" or len(present) == 0)
    if bool(present.isin([0, 1]).all()):
        return "binary"
    return "count" if is_whole and present.min() >= 0 and present.max() <= EXACT else "real"


def _categories(name: str, values: Any) -> list[Any]:
    """The values of a column in their order; numbers, texts and bools as they are, others as text."""
    found = values.dropna().unique().tolist()
    if not all(isinstance(value, bool | int | str) for value in found):
        whole = all(isinstance(value, float) and value.is_integer() for value in found)
        found = sorted(int(value) for value in found) if whole else [str(value) for value in found]
    found = sorted(set(found), key=lambda value: (isinstance(value, str), value))
    if len(found) > MOST_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(found)} categories, more than {MOST_CATEGORIES}: leave it out with {_key(name)}"
        )
    return [_plain(name, value) for value in found]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, str) and "${" in value:
        raise ValueError(f"column {name!r}: a name or category with ${{ cannot stand in a config: rename {value!r}")
    return value


def _key(name: str) -> str:
    return f"'data.source.kinds={{{name}: none}}'"


def _listed(names: Any) -> str:
    return ", ".join([*map(str, names[:12]), *([f"... ({len(names)} in all)"] if len(names) > 12 else [])])
