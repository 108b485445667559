"""The bound that training logs, with its standard errors."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.draws import Draw
from vae_exp.ledger import Ledger, NonFiniteError
from vae_exp.metrics.nll import with_errors
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained

__all__ = ["elbo", "train_gap"]

REPEATS = 8  # further draws for each image, for the error over draws


@torch.no_grad()
def elbo(trained: Trained) -> dict[str, Any]:
    """elbo, recon, kl and what else the objective logs, with the same noise as the test at the end of training.

    If the objective logs `iwae`, `iwae_samples` says how many latents each bound uses.

    elbo, recon and kl have two standard errors each. `_se_images` is the error of the mean because the images are a
    sample of all possible images. `_se_draws` is the error because the latents are a sample of the posterior, with the
    images held fixed.

    Raises:
        ConfigError: If the loss is not a finite number.
    """
    ledger, means, spreads = Ledger(trained.split), [], []
    with trained.bar(trained.num_images(), "elbo") as bar:
        # Not `trained.batches`, which seeds again: the noise must be the same as in the test after training.
        for x, y in trained.data.batches(trained.split):  # type: ignore[arg-type]
            loss, draw = trained.model.objective(trained.model, x, y, trained.model.step)
            ledger.note(draw.terms, loss, f"image {bar.n} to {bar.n + len(x) - 1}")
            means.append(_bound(draw))
            resampled = [_bound(draw.resample(len(draw.z))) for _ in range(REPEATS)]
            spreads.append({name: torch.stack([a[name] for a in resampled]).var(dim=0) for name in resampled[0]})
            bar.update(len(x))
    try:
        numbers: dict[str, Any] = ledger.compute(lambda sums: sums)
    except NonFiniteError as error:
        raise ConfigError(str(error)) from error
    for name in means[0]:
        each = torch.cat([mean[name] for mean in means])
        spread = torch.cat([s[name] for s in spreads])
        numbers |= {**with_errors(name, each, spread), name: numbers[name]}
    if "iwae" in numbers:
        numbers["iwae_samples"] = trained.model.objective.iwae_samples
    return numbers


@torch.no_grad()
def train_gap(trained: Trained) -> dict[str, Any]:
    """`elbo_train`, over as many random training images as the split has images, and `elbo_gap`, how far it is above
    the ELBO of the split. For an autoencoder: `recon_train`, and `recon_gap`, how far it is below. Scored like `elbo`.

    Raises:
        NoMeaningError: If the split is train.
    """
    if trained.split == "train":
        raise NoMeaningError("split=train: the gap is between train and another split, choose test or val")
    name, sign = ("elbo", 1) if trained.model.has("density") else ("recon", -1)
    num_train = min(trained.num_images(), trained.num_images("train"))
    means: list[float] = []
    variances: list[float | None] = []  # None for a single image
    with trained.bar(num_train + trained.num_images(), "train gap") as bar:
        for split, num in (("train", num_train), (trained.split, None)):
            each: list[Tensor] = []
            for x, y in trained.subset(split, num).data.batches(split):  # type: ignore[arg-type]
                _, draw = trained.model.objective(trained.model, x, y, trained.model.step)
                each.append(_bound(draw)[name])
                bar.update(len(x))
            values = on_cpu(torch.cat(each))
            means.append(float(values.mean()))
            variances.append(float(values.var()) / len(values) if len(values) > 1 else None)
    return {
        f"{name}_train": means[0],
        f"{name}_train_se_images": _error(variances[:1]),
        f"{name}_train_images": num_train,
        f"{name}_gap": sign * (means[0] - means[1]),
        f"{name}_gap_se_images": _error(variances),
    }


def _error(variances: list[float | None]) -> float | None:
    known = [variance for variance in variances if variance is not None]
    return sqrt(sum(known)) if len(known) == len(variances) else None


def _bound(draw: Draw) -> dict[str, Tensor]:
    """`(B,)` each."""
    if draw.p is None:
        return {"recon": draw.recon}
    return {"elbo": draw.elbo, "recon": draw.recon, "kl": draw.kl}
