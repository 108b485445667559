"""Rows of a table that are improbable under the model, and the columns that make them so."""

import csv
from pathlib import Path
from typing import Any

import torch

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.what.anomalies import check_options, score_each
from vae_exp.what.errors import mean_and_error
from vae_exp.what.rows import columns_of_run

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
    """Writes `anomalies.csv`: the rows of the split, the strangest first.

    Each row has its line in the file, its score, the three columns that make it strangest, its entries. A column makes
    a row strange by as many nats as `-E_q log p(x_d | z)` is more than its mean over the rows.

    Returns:
        `score`, the mean in nats per row with its standard error.

    Raises:
        NoMeaningError: If the model has no density.
        ConfigError: If an option has no such value, or is for pictures alone.
    """
    for key, value in {"background": background, "against": against, "input": input}.items():
        if value is not None:
            raise ConfigError(f"{key}={value} is for pictures: leave it out for the rows of a table")
    check_options(trained, score, num_samples, num_images, background)
    columns = columns_of_run(trained)
    rows, scores, terms = [], [], []
    for x, y in trained.batches(num_images=num_images):
        scores.append(on_cpu(score_each(trained.model, x, score, num_samples)))
        draw = trained.model.draw(x, y, num_samples)
        each = draw.px.base_dist.log_prob(x.expand(num_samples, *x.shape))  # type: ignore[attr-defined]
        terms.append(-on_cpu(each.mean(dim=0).flatten(1)))
        rows.append(x.cpu())
    x, total, surprise = torch.cat(rows).flatten(1), torch.cat(scores), torch.cat(terms)
    known = ~x.isnan()
    usual = (surprise * known).sum(0) / known.sum(0).clamp(min=1)
    excess = torch.where(known, surprise - usual, -torch.inf)
    lines = [row + 2 for row in trained.keys(num_images)]  # the names of the columns are line 1
    with written(out / "anomalies.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["line", "score", "strange", *(column.name for column in columns)])
        for i in total.argsort().tolist():
            texts = [column.text(value) for column, value in zip(columns, x[i].tolist(), strict=True)]
            most = [d for d in excess[i].argsort(descending=True).tolist()[:NAMED] if excess[i, d] > 0]
            strange = "; ".join(f"{columns[d].name}={texts[d]} (+{excess[i, d]:.1f})" for d in most)
            writer.writerow([lines[i], f"{total[i]:.4f}", strange, *texts])
    return {"num_images": len(total), **mean_and_error("score", total)}
