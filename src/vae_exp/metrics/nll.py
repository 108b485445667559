"""-log p(x) by importance sampling (arXiv:1509.00519), in nats and in bits (arXiv:1511.01844)."""

import logging
from math import isnan, log, sqrt
from typing import Any

import torch
from torch import Tensor

from vae_exp.estimators.importance import Marginal, importance_sampling
from vae_exp.metrics.options import at_least
from vae_exp.precision import on_cpu
from vae_exp.runs.build import bound
from vae_exp.runs.trained import Trained

__all__ = ["bits_per_dim", "nll", "nll_numbers", "with_errors"]

FEW = 10  # effective latents: below this an estimate says little
logger = logging.getLogger("vae_exp")


@torch.no_grad()
def nll(trained: Trained, num_samples: int) -> dict[str, Any]:
    """`-log p(x)` (for a CVAE `-log p(x | y)`) by importance sampling with K latents per image (Burda et al., 2016).

    Arguments:
        trained: The run.
        num_samples: K.

    Returns:
        `nll`, an upper bound on average, with its standard errors over images and over draws; `nll_samples`, K;
        `nll_curve`, the bounds of 1, 10, 100, ... latents; the effective sample size, its mean, median and minimum over
        images, and the share of images for which it is less than 10; `bits_per_dim`, see there.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If the model has no density.
    """
    at_least(1, num_samples=num_samples)
    trained.model.require("density")
    parts: list[Marginal] = []
    num_images = trained.num_images()
    with trained.bar(num_images * num_samples, f"nll, {num_samples} latents an image", "latents") as bar:
        for x, y in trained.batches():
            parts.append(importance_sampling(trained.model.draw(x, y), num_samples, bar.update))
    numbers = nll_numbers(parts)
    if numbers["share_with_ess_under_10"] > 0:
        logger.warning(
            "nll: the effective sample size is under %d for %.1f %% of the images, for which the bound may be loose: "
            "give more num_samples, or a second opinion, metrics=[nll,ais]",
            FEW,
            100 * numbers["share_with_ess_under_10"],
        )
    return numbers | bits_per_dim(trained, numbers["nll"])


def nll_numbers(parts: list[Marginal]) -> dict[str, Any]:
    """The numbers of all images from those of the batches."""
    log_px = torch.cat([part.log_px for part in parts]).cpu()
    ess = torch.cat([part.ess for part in parts]).cpu()
    variances = torch.cat([part.variance for part in parts])
    sizes = list(parts[0].curve)
    return {
        **with_errors("nll", -log_px, variances),
        "nll_samples": sizes[-1],
        "nll_curve": {size: -float(torch.cat([part.curve[size] for part in parts]).mean()) for size in sizes},
        "ess_mean": float(ess.mean()),
        "ess_median": float(ess.median()),
        "ess_min": float(ess.min()),
        "share_with_ess_under_10": float(on_cpu(ess < FEW).mean()),
    }


def with_errors(name: str, each: Tensor, variance: Tensor | None = None) -> dict[str, float | None]:
    """The mean over images with its standard errors; an error that cannot be computed is None.

    Arguments:
        name: The name of the mean; those of the errors are the same with `_se_images` and `_se_draws`.
        each: The number of each image, `(B,)`.
        variance: The variance of each image's number over draws, `(B,)`; nan if there is only one draw.
    """
    each = on_cpu(each)
    error = None if variance is None else float(on_cpu(variance).sum().sqrt()) / len(each)
    return {
        name: float(each.mean()),
        f"{name}_se_images": float(each.std()) / sqrt(len(each)) if len(each) > 1 else None,
        f"{name}_se_draws": None if error is None or isnan(error) else error,
    }


def bits_per_dim(trained: Trained, nats: float) -> dict[str, Any]:
    """`bits_per_dim` for pixels with finitely many values; for dequantised pixels the bound of Theis et al. (2016).

    For others it is None, and `bits_per_dim_refused` is the reason.
    """
    data = trained.data
    what, dims = bound(trained.model, data), log(2) * torch.Size(data.image_shape).numel()
    if not what["is_bound"]:
        reason = "the likelihood is no probability of these pixels (likelihood.allow_grey=true)"
        return {"bits_per_dim": None, "bits_per_dim_refused": reason}
    try:
        return {"bits_per_dim": nats / dims + data.representation.bits_offset(what["kind"] == "mass")}
    except ValueError as error:
        return {"bits_per_dim": None, "bits_per_dim_refused": str(error)}
