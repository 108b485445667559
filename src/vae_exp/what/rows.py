"""Rows drawn from a model of a table."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_exp import plots, samplers
from vae_exp.columns import Column
from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.metrics.options import at_least
from vae_exp.runs.trained import Trained
from vae_exp.what.samples import PIXELS

__all__ = ["columns_of_run", "rows_of_files", "samples", "write_rows"]

TOLD = 12  # rows that are drawn as a table


@torch.no_grad()
def samples(
    trained: Trained, out: Path, num_images: int, sampler: str = "prior", pixels: str | None = None
) -> dict[str, Any]:
    """Writes `samples.csv`, rows in the table's own units and categories, and in `table.png` the first of
    them, and in `samples.png` and `correlations.png` their histograms and correlations beside those of the data.

    Arguments:
        trained: The run.
        out: The folder.
        num_images: Number of rows.
        sampler: As for images.
        pixels: `sample` (also for None), rows of p(x|z), or its `mean`.

    Returns:
        `correlation_error`, the mean absolute difference of the correlations of numbers in samples and in data; of a
        fitted sampler its numbers.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no prior, or no density can be fitted.
    """
    at_least(1, num_images=num_images)
    if pixels not in (None, *PIXELS):
        raise ValueError(f"pixels={pixels}: choose {' or '.join(PIXELS)}")
    model, columns = trained.model, columns_of_run(trained)
    latents = samplers.sampler(trained, sampler)
    trained.reseed("samples")
    y = model.example_y(num_images) if model.context_dim else None
    c = model.context(y)
    px = model.decode(latents(num_images, c), c)
    rows = px.mean if pixels == "mean" else px.sample()
    write_rows(out / "samples.csv", columns, rows, _labels(trained, y) if y is not None else {})
    texts = [
        [column.text(x) for column, x in zip(columns, row, strict=True)] for row in rows[:TOLD].flatten(1).tolist()
    ]
    about = f"{trained.cfg.name}\nthe first rows of samples.csv"
    plots.table([column.name for column in columns], texts, about, out / "table.png")
    data, _ = trained.images(trained.num_images())
    title = f"{trained.cfg.name}\nrows of the model, z from {latents.name}, beside {trained.split_title} rows"
    sets = {"data": data, "model": rows}
    shown = {column.name: (_categories(column), {k: x.flatten(1)[:, d].cpu().numpy() for k, x in sets.items()})
             for d, column in enumerate(columns)}  # fmt: skip
    plots.bars(shown, title, out / "samples.png")
    numbers = [d for d, column in enumerate(columns) if not column.categories]
    if len(numbers) < 2 or num_images < 3:
        return latents.numbers
    both = {label: _correlations(x.flatten(1)[:, numbers].cpu().numpy()) for label, x in sets.items()}
    plots.correlations(both, [columns[d].name for d in numbers], title, out / "correlations.png")
    error = float(np.nanmean(np.abs(both["data"] - both["model"])[np.triu_indices(len(numbers), 1)]))
    return {**latents.numbers, "correlation_error": error}


def columns_of_run(trained: Trained) -> tuple[Column, ...]:
    """The columns of the table of a run."""
    return trained.data.representation.columns  # type: ignore[attr-defined]


def rows_of_files(trained: Trained, paths: str) -> Iterator[tuple[list[str], Tensor, Tensor | None]]:
    """Names, rows `(N, 1, 1, D)` and labels of the user's tables, in batches.

    Raises:
        ConfigError: If a table has other columns, or not the labels that the model needs.
    """
    for names, x, y in trained.inputs(paths):
        if y is None and trained.model.needs_labels:
            raise ConfigError(f"input={paths}: the model needs the label of each row, the column of data.source.label")
        yield names, x, y


def write_rows(path: Path, columns: Sequence[Column], rows: Tensor, beside: Mapping[str, Iterable[Any]]) -> None:
    """A CSV of rows `(N, 1, 1, D)` as they stand in a table, with further columns in front."""
    with written(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*beside, *(column.name for column in columns)])
        for row, *front in zip(rows.flatten(1).tolist(), *beside.values(), strict=True):
            writer.writerow([*front, *(column.text(value) for column, value in zip(columns, row, strict=True))])


def _labels(trained: Trained, y: Tensor) -> dict[str, list[str]]:
    names = trained.data.source.labels  # type: ignore[attr-defined]
    return {"label": [str(names[k]) for k in y.tolist()]} if names else trained.model.condition.table(y)


def _categories(column: Column) -> list[str] | None:
    if column.kind == "binary":
        return ["0", "1"]
    return list(map(str, column.categories)) or None


def _correlations(x: np.ndarray) -> np.ndarray:
    """`(N, D) -> (D, D)`, of each pair from the rows in which both are there."""
    masked = np.ma.masked_invalid(x)
    return np.ma.corrcoef(masked, rowvar=False).filled(np.nan)
