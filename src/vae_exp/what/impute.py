"""Missing entries of rows, filled in: `E[x_mis | x_obs]` by importance sampling.

Mattei & Frellsen (2019), arXiv:1812.02633.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_exp.columns import Column
from vae_exp.config import ConfigError
from vae_exp.draws import Draw
from vae_exp.estimators.importance import CHUNK
from vae_exp.models import VAE
from vae_exp.precision import exact, on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.what.rows import columns_of_run, rows_of_files, write_rows

__all__ = ["fill", "impute"]


@torch.no_grad()
def impute(
    trained: Trained,
    out: Path,
    num_samples: int,
    share: float,
    num_images: int | None,
    input: str | None,  # noqa: A002
) -> dict[str, Any]:
    """Writes `imputed.csv`: the rows of the split, or of the table `input`, with their missing entries filled in.

    Its numbers are of entries of the split that are there and are hidden on purpose. The imputers of scikit-learn
    (column mean, five nearest neighbours, iterative) are fitted on the training rows, numbers with mean 0 and variance
    1, categories as one-hot columns.

    Returns:
        `hidden`, the number of hidden entries; of the model and of each imputer `rmse`, the root mean squared error of
        hidden numbers in standard deviations of their column in the training rows, and `accuracy`, the share of hidden
        categories that are found; each if there are such entries.

    Raises:
        NoMeaningError: If the model has no density.
        ConfigError: If an option is out of its range.
    """
    trained.model.require("density")
    if num_samples < 1 or not 0 < share < 1:
        raise ConfigError(f"num_samples={num_samples} share={share}: at least 1, and between 0 and 1, are needed")
    columns = columns_of_run(trained)
    x, y = trained.images(num_images or trained.num_images())
    trained.reseed("impute")
    filled_in, beside = _filled(trained, x, y, input, num_samples)
    write_rows(out / "imputed.csv", columns, filled_in, beside)
    is_hidden = (torch.rand(x.shape, device=x.device) < share) & ~x.isnan()
    seen = torch.where(is_hidden, torch.nan, x)
    filled = {"model": _numpy(fill(trained.model, seen, y, num_samples, columns))}
    train, _ = trained.images(trained.num_images("train"), "train")
    filled |= _others(_numpy(train), _numpy(seen), columns)
    deviation = np.nanstd(_numpy(train), axis=0)
    truth, where = _numpy(x), _numpy(is_hidden).astype(bool)
    numbers: dict[str, Any] = {"hidden": int(where.sum())}
    is_category = np.array([bool(column.categories) for column in columns])
    for name, rows in filled.items():
        errors = ((rows - truth) / np.where(deviation > 0, deviation, 1))[:, ~is_category][where[:, ~is_category]]
        found = (np.round(rows) == truth)[:, is_category][where[:, is_category]]
        numbers |= {f"rmse_{name}": float(np.sqrt(np.mean(errors**2)))} if len(errors) else {}
        numbers |= {f"accuracy_{name}": float(found.mean())} if len(found) else {}
    return numbers


def _filled(
    trained: Trained, x: Tensor, y: Tensor, paths: str | None, num_samples: int
) -> tuple[Tensor, dict[str, list[str]]]:
    """The rows of the files, filled in, and their names; without files those of the split."""
    columns = columns_of_run(trained)
    if paths is None:
        return fill(trained.model, x, y, num_samples, columns), {}
    names, parts = [], []
    for some, rows, label in rows_of_files(trained, paths):
        names += some
        parts.append(fill(trained.model, rows, label, num_samples, columns))
    return torch.cat(parts), {"row": names}


@torch.no_grad()
def fill(model: VAE, x: Tensor, y: Tensor | None, num_samples: int, columns: tuple[Column, ...]) -> Tensor:
    """Rows `(B, 1, 1, D)` with their missing entries filled in; the others stay as they are.

    With `z_k ~ q(z | x_obs)` and self-normalised weights `w_k ~ p(x_obs | z_k) p(z_k) / q(z_k | x_obs)` a number is
    `sum_k w_k E[x | z_k]`, and a category the one with the most weight among draws of `p(x | z_k)`.

    Arguments:
        model: A model with a density.
        x: The rows, nan where an entry is missing.
        y: Labels `(B,)`, for a model that conditions on them.
        num_samples: K, latents per row.
        columns: The columns.
    """
    rows = [_fill(model.draw(one, label), num_samples, columns) for one, label in _chunks(x, y, num_samples)]
    return torch.where(x.isnan(), torch.cat(rows).to(x.dtype), x)


def _chunks(x: Tensor, y: Tensor | None, num_samples: int) -> list[tuple[Tensor, Tensor | None]]:
    size = max(1, CHUNK // (num_samples * 16 * x[0].numel()))
    labels = [None] * -(-len(x) // size) if y is None else y.split(size)
    return list(zip(x.split(size), labels, strict=True))


def _fill(draw: Draw, num_samples: int, columns: tuple[Column, ...]) -> Tensor:
    drawn = draw.resample(num_samples)
    weights = drawn.log_w.to(exact(draw.x)).softmax(dim=0)  # (K, B)
    filled = torch.einsum("kb,kbchd->bchd", weights, drawn.px.mean.to(weights.dtype))
    entries = drawn.px.sample()  # (K, B, 1, 1, D)
    for d, column in enumerate(columns):
        if column.categories:
            is_one = entries[..., 0, 0, d, None].round() == torch.arange(len(column.categories), device=draw.x.device)
            filled[:, 0, 0, d] = torch.einsum("kb,kbc->bc", weights, is_one.to(weights.dtype)).argmax(-1).to(filled)
    return filled


def _numpy(x: Tensor) -> np.ndarray:
    return on_cpu(x.flatten(1)).numpy()


def _others(train: np.ndarray, seen: np.ndarray, columns: tuple[Column, ...]) -> dict[str, np.ndarray]:
    """What the imputers of scikit-learn make of rows `(N, D)`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    wide = _wide(train, columns)
    mean, deviation = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    imputers = {
        "mean": SimpleImputer(keep_empty_features=True),
        "nearest": KNNImputer(keep_empty_features=True),
        "iterative": IterativeImputer(random_state=0, keep_empty_features=True),
    }
    filled = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of ten rounds, its default
        for name, imputer in imputers.items():
            imputer.fit((wide - mean) / deviation)
            rows = imputer.transform((_wide(seen, columns) - mean) / deviation) * deviation + mean
            filled[name] = np.where(np.isnan(seen), _narrow(rows, columns), seen)
    return filled


def _wide(rows: np.ndarray, columns: tuple[Column, ...]) -> np.ndarray:
    """One-hot columns in place of categories, nan where those are missing."""
    parts = []
    for d, column in enumerate(columns):
        one = rows[:, d : d + 1]
        hot = (one == np.arange(len(column.categories))).astype(float) if column.categories else one
        parts.append(np.where(np.isnan(one), np.nan, hot))
    return np.concatenate(parts, axis=1)


def _narrow(rows: np.ndarray, columns: tuple[Column, ...]) -> np.ndarray:
    """The most probable category in place of its one-hot columns."""
    parts, start = [], 0
    for column in columns:
        part = rows[:, start : start + (len(column.categories) or 1)]
        start += part.shape[1]
        parts.append(part.argmax(axis=1)[:, None] if column.categories else part)
    return np.concatenate(parts, axis=1)
