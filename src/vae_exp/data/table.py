"""A table of the user's, CSV or Parquet: a row is an image of one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from vae_exp.columns import columns_of
from vae_exp.data.attributes import rows
from vae_exp.data.representation import Binarize, Levels
from vae_exp.data.rows import Rows
from vae_exp.data.schema import codes, read_table, schema_of
from vae_exp.data.split import Source, Split
from vae_exp.paths import located

__all__ = ["Table"]


@final
class Table(Source):
    """Rows of a CSV or Parquet file, float32 `(N, 1, 1, D)` in the table's own units; nan where an entry is missing.

    Args:
        path: The file, from the current folder or from data.root.
        kinds: By column, its kind in place of the one that was found; `none` leaves it out.
        label: The column of the labels, or a list of columns, the attributes in y.
        schema: What was found in the file, see `vae_exp.data.schema.schema_of`; `error` if it cannot be read.

    Raises:
        ValueError: If the table cannot be read, or has no columns.
    """

    def __init__(
        self,
        path: str | None,
        kinds: Mapping[str, str] | None,
        label: str | Sequence[str] | None,
        schema: Mapping[str, Any],
    ) -> None:
        if "error" in schema:
            raise ValueError(schema["error"])
        self.path, self.kinds, self.label = path, kinds, label
        self.columns, self.labels = columns_of(schema["columns"]), schema["labels"]
        self.attributes = schema.get("attributes")  # a run before there were any has none
        self.name = Path(path or "").stem

    def representation(self, levels: Levels, binarize: Binarize, dequantize: bool) -> Rows:
        """Rows of these columns."""
        if levels is not None or binarize != "none" or dequantize:
            raise ValueError("data.levels, binarize and dequantize are for pixels: leave them out for a table")
        return Rows(self.columns)

    def fetch(self, root: Path) -> None:
        """Only checks early that the file is there."""
        located(str(self.path), root)

    def load(self, root: Path) -> dict[str, Split]:
        """One split, "train".

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If its columns are not those of the config.
        """
        return {"train": self._rows(read_table(located(str(self.path), root)), f"data.source.path={self.path}")}

    def own(self, path: Path, image_shape: Sequence[int], levels: Levels) -> Split:
        """The rows of another table with these columns, named by their lines; that of the labels may be missing."""
        frame = read_table(path)
        own = self._rows(frame, f"{path}", needs_label=False)
        # Line 1 of a CSV has the names of the columns.
        return Split(own.x, own.y, np.array([f"{path}:{line}" for line in range(2, len(frame) + 2)]))

    def _rows(self, frame: Any, given: str, needs_label: bool = True) -> Split:
        told = [] if self.label is None else [self.label] if isinstance(self.label, str) else list(self.label)
        has_label = bool(told) and (needs_label or all(name in frame for name in told))
        names = [column.name for column in self.columns] + (told if has_label else [])
        if missing := [name for name in names if name not in frame]:
            raise ValueError(f"{given} has no column {', '.join(missing)}, which the config names")
        if not len(frame):
            raise ValueError(f"{given} has no rows")
        x = np.stack(
            [
                codes(column.name, frame[column.name], column.categories)
                if column.categories
                else frame[column.name].to_numpy(np.float64, na_value=np.nan)
                for column in self.columns
            ],
            axis=1,
        )
        _check_digits(names, x)
        y = self._told(frame, given) if has_label else torch.full((len(x),), -1)
        return Split(torch.from_numpy(x.astype(np.float32)).view(len(x), 1, 1, -1), y)

    def _told(self, frame: Any, given: str) -> Tensor:
        """Labels `(N,)`, -1 for none, or attributes `(N, A)`."""
        if self.attributes is not None:
            return rows(frame, self.attributes, given)
        y = codes(str(self.label), frame[self.label], self.labels)
        return torch.from_numpy(np.nan_to_num(y, nan=-1).astype(np.int64))


def _check_digits(names: Sequence[str], x: np.ndarray) -> None:
    """Raises ValueError if float32 would lose what distinguishes the entries of a column."""
    with np.errstate(invalid="ignore"):
        lost = np.nanmax(np.abs(x - x.astype(np.float32)), axis=0)
        spread = np.nanstd(x, axis=0)
    for name, error, scale in zip(names, lost, spread, strict=False):
        if error > 1e-3 * scale > 0 or np.isinf(error):
            raise ValueError(
                f"column {name!r}: float32 does not tell its entries apart (they differ by {scale:.3g}, and "
                f"are rounded by {error:.3g}).\nSubtract its start, or leave it out: "
                f"'data.source.kinds={{{name}: none}}'"
            )


def schema_or_reason(
    path: str | None, root: str, kinds: Mapping[str, str], label: str | Sequence[str] | None
) -> dict[str, Any]:
    """The schema of a file, or under `error` why there is none, for `conf/`; `Table` then says so."""
    empty = {"columns": [{"name": "none", "kind": "real"}], "labels": None, "attributes": None, "rows": 0}
    if path is None:
        return {**empty, "error": "data.source.path is not given: data=table reads the file data.source.path=FILE.csv"}
    try:
        return schema_of(located(path, root), kinds, label)
    except (OSError, ValueError) as error:
        return {**empty, "error": str(error).replace("${", "$ {")}
