"""-log p(x) by importance sampling (arXiv:1509.00519), and the same in bits per dimension (arXiv:1511.01844)."""

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

FEW = 10  # effective latents; an estimate with fewer says little
logger = logging.getLogger("vae_exp")


@torch.no_grad()
def nll(trained: Trained, num_samples: int) -> dict[str, Any]:
    """`-log p(x)` (of a CVAE `-log p(x | y)`) by importance sampling, K latents for each image (Burda et al., 2016).

    Returns:
        `nll`, an upper bound on average, with its standard errors over images and over draws; `nll_curve`, the bounds
        of 1, 10, 100, ... latents; the effective sample size: its mean, median and minimum over images, and the
        share of images for which it is under 10; `bits_per_dim` if it is defined.

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
            "set a larger num_samples, or compare with a second estimate, metrics=[nll,ais]",
            FEW,
            100 * numbers["share_with_ess_under_10"],
        )
    return numbers | bits_per_dim(trained, numbers["nll"])


def nll_numbers(parts: list[Marginal]) -> dict[str, Any]:
    """The numbers for all images, computed from those of the batches."""
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
        name: The name of the mean; its errors get `_se_images` and `_se_draws` after this name.
        each: The number of each image, `(B,)`.
        variance: The variance over draws of the number of each image, `(B,)`; nan if there is only one draw.
    """
    each = on_cpu(each)
    error = None if variance is None else float(on_cpu(variance).sum().sqrt()) / len(each)
    return {
        name: float(each.mean()),
        f"{name}_se_images": float(each.std()) / sqrt(len(each)) if len(each) > 1 else None,
        f"{name}_se_draws": None if error is None or isnan(error) else error,
    }


def bits_per_dim(trained: Trained, nats: float) -> dict[str, Any]:
    """`bits_per_dim` of pixels with finitely many values; for dequantised ones the upper bound of Theis et al. (2016).

    For other pixels, it is None and `bits_per_dim_refused` gives the reason.
    """
    data = trained.data
    what, dims = bound(trained.model, data), log(2) * torch.Size(data.image_shape).numel()
    if not what["is_bound"]:
        reason = "the likelihood is not a probability of these pixels (likelihood.allow_grey=true)"
        return {"bits_per_dim": None, "bits_per_dim_refused": reason}
    try:
        return {"bits_per_dim": nats / dims + data.representation.bits_offset(what["kind"] == "mass")}
    except ValueError as error:
        return {"bits_per_dim": None, "bits_per_dim_refused": str(error)}
