"""`metrics.csv`, the numbers of a run; what other loggers hold is a view of it."""

import csv
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from vae_exp.files import appended, written
from vae_exp.records import read_rows

__all__ = ["CSV", "forget_validation", "rows_before"]


def rows_before(path: Path, step: int) -> list[dict[str, str]]:
    """The sound rows of earlier steps than `step`; none where there is no file."""
    return [row for row in read_rows(path) if int(row["step"]) < step]


def forget_validation(path: Path, step: int) -> None:
    """Removes the row of the validation after a step, which is about to be repeated."""
    rows = read_rows(path)
    kept = [
        row
        for row in rows
        if int(row["step"]) != step or not any(value for key, value in row.items() if key.startswith("val/"))
    ]
    if len(kept) < len(rows):
        with written(path, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)


class CSV(Logger):
    """`metrics.csv`: one row each time something is logged, written at once.

    Lightning's own CSVLogger deletes the file when a run is resumed; this one continues it. The column `seconds` is the
    time since training began, summed over the starts of the run: a resumed run goes on from the last row that it keeps.
    A file without the column, of an earlier version, goes on without it, because its time is unknown.

    Arguments:
        save_dir: The run folder.
        first_step: The first step of this start, 0 for a new run. An existing file keeps only the rows of earlier
            steps, because a resumed run repeats the other steps.
    """

    def __init__(self, save_dir: str, first_step: int) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._keys: list[str] = []
        self._seconds: float | None = 0.0  # of earlier starts
        self._start = time.perf_counter()
        if self.path.exists():
            kept = rows_before(self.path, first_step)
            self._keys = list(kept[0]) if kept else []
            if kept:
                self._seconds = float(kept[-1]["seconds"] or 0) if "seconds" in self._keys else None
            self._rewrite(kept, self._keys)

    @property
    def name(self) -> str:
        """Empty: the file lies right in the run folder."""
        return ""

    @property
    def version(self) -> str:
        """Empty, likewise."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Starts the clock, for this comes right before training. The config is already in the run folder."""
        self._start = time.perf_counter()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends one row; for a new metric the file is written again with one more column."""
        row: dict[str, Any] = {"step": step, **metrics}
        if self._seconds is not None:
            row["seconds"] = round(self._seconds + time.perf_counter() - self._start, 3)
        new = [key for key in row if key not in self._keys]
        if new:
            self._rewrite(read_rows(self.path), [*self._keys, *new])
        with appended(self.path, newline="") as file:
            csv.DictWriter(file, self._keys).writerow(row)

    @rank_zero_only
    def _rewrite(self, rows: list[dict[str, str]], keys: list[str]) -> None:
        self._keys = keys
        with written(self.path, newline="") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(rows)
