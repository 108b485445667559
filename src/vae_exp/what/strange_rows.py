"""Rows of a table that are improbable under the model, and the columns that make them so."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_exp.columns import Column
from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.models import VAE
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.what.anomalies import check_options, score_each
from vae_exp.what.errors import mean_and_error
from vae_exp.what.rows import columns_of_run, rows_of_files

__all__ = ["strange_rows"]

NAMED = 3  # columns that are named for each row


@torch.no_grad()
def strange_rows(
    trained: Trained,
    out: Path,
    score: str,
    num_samples: int,
    num_images: int | None,
    background: str | None,
    against: str | None,
    input: str | None,  # noqa: A002
) -> dict[str, Any]:
    """Writes `anomalies.csv`: the rows of the split, the strangest first; and the same for `input` as `input.csv`.

    Each row has its line in the file, its score, the three columns that make it strangest, its entries. A column makes
    a row strange by as many nats as `-E_q log p(x_d | z)` is more than its mean over the rows of the split. Rows of
    `input` also have the share of the rows of the split that are stranger.

    Returns:
        `score`, the mean in nats per row with its standard error; with `input`, `num_input` and `score_input`, too.

    Raises:
        NoMeaningError: If the model has no density.
        ConfigError: If an option has no such value, or is for pictures alone, or a table has other columns.
    """
    for key, value in {"background": background, "against": against}.items():
        if value is not None:
            raise ConfigError(f"{key}={value} is for pictures: leave it out for the rows of a table")
    check_options(trained, score, num_samples, num_images, background)
    columns = columns_of_run(trained)

    def scored(batches: Iterable[tuple[Tensor, Tensor | None]]) -> _Rows:
        parts = [_scored(trained.model, x, y, score, num_samples) for x, y in batches]
        return _Rows(*(torch.cat(each) for each in zip(*parts, strict=True)))

    own = scored(trained.batches(num_images=num_images))
    known = ~own.x.isnan()
    usual = (own.surprise * known).sum(0) / known.sum(0).clamp(min=1)
    lines = [row + 2 for row in trained.keys(num_images)]  # the names of the columns are line 1
    _write(out / "anomalies.csv", own, usual, columns, {"line": lines})
    numbers = {"num_images": len(own.scores), **mean_and_error("score", own.scores)}
    if input is not None:
        names: list[str] = []
        batches = _named(trained, input, names)
        given = scored(batches)
        stranger = [f"{float(on_cpu(own.scores < value).mean()):.4f}" for value in given.scores]
        _write(out / "input.csv", given, usual, columns, {"row": names, "share_lower": stranger})
        numbers |= {"num_input": len(names), **mean_and_error("score_input", given.scores)}
    return numbers


class _Rows(NamedTuple):
    """Rows `(N, D)`, their scores `(N,)`, and `-E_q log p(x_d | z)` `(N, D)`, on the CPU."""

    x: Tensor
    scores: Tensor
    surprise: Tensor


def _named(trained: Trained, paths: str, names: list[str]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The rows and labels of files; their names are added to `names`."""
    for i, (some, x, y) in enumerate(rows_of_files(trained, paths)):
        names += some
        trained.reseed("input", i)
        yield x, y


def _scored(model: VAE, x: Tensor, y: Tensor | None, score: str, num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = model.draw(x, y, num_samples)
    each = draw.px.base_dist.log_prob(x.expand(num_samples, *x.shape))  # type: ignore[attr-defined]
    surprise = -on_cpu(each.mean(dim=0).flatten(1))
    return x.cpu().flatten(1), on_cpu(score_each(model, x, score, num_samples)), surprise


def _write(path: Path, rows: _Rows, usual: Tensor, columns: Sequence[Column], beside: dict[str, Sequence[Any]]) -> None:
    """Rows as lines of a CSV, the strangest first, behind the columns `beside`."""
    excess = torch.where(rows.x.isnan(), -torch.inf, rows.surprise - usual)
    with written(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*beside, "score", "strange", *(column.name for column in columns)])
        for i in rows.scores.argsort().tolist():
            texts = [column.text(value) for column, value in zip(columns, rows.x[i].tolist(), strict=True)]
            most = [d for d in excess[i].argsort(descending=True).tolist()[:NAMED] if excess[i, d] > 0]
            strange = "; ".join(f"{columns[d].name}={texts[d]} (+{excess[i, d]:.1f})" for d in most)
            front = [values[i] for values in beside.values()]
            writer.writerow([*front, f"{rows.scores[i]:.4f}", strange, *texts])
