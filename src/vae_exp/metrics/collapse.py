"""Posterior collapse: whether the latents are unused, and what to change."""

from collections.abc import Mapping
from math import e, log, pi, prod, sqrt
from typing import Any

from omegaconf import DictConfig

__all__ = ["unused_latents"]

UNUSED = 0.1  # nats per image: the information of z about the image, over all dimensions
FEW = 1000  # training steps; before that many, the latents of many models are not used yet
ENTROPY = {"Normal": log(sqrt(2 * pi * e)), "Laplace": log(2 * e)}  # nats per pixel at a scale of 1
WEIGHTS = {"BetaELBO": ("beta",), "BetaTCVAE": ("alpha", "beta", "gamma")}  # the weights of the parts of the KL


def unused_latents(cfg: DictConfig, metrics: Mapping[str, Any], steps: int | None) -> str | None:
    """One line for a run whose latents contain no information about the image, with ways out for its config; else None.

    The information is the mutual information of z and the image. The KL is never smaller than it, so a small KL shows
    that the information is small. A small `active_units` does not: if the means vary little, the posteriors can be even
    narrower.

    Arguments:
        cfg: The resolved config of the run.
        metrics: By `split/name`, nats per image: `kl` and, if they are known, `mutual_information`, `recon` and
            `active_units`. Those of test are used, or else those of val, or else those of train. Without a KL (an
            autoencoder) the result is None.
        steps: Training steps so far, None if they are not known.
    """
    splits = [name.partition("/")[0] for name in metrics if name.endswith(("/kl", "/mutual_information"))]
    split = next((split for split in ("test", "val", "train") if split in splits), "test")
    numbers = {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{split}/")}
    information = numbers.get("mutual_information")
    known = numbers.get("kl") if information is None else information
    if known is None or known >= UNUSED:
        return None
    name = "KL" if information is None else "mutual information with the image"
    active = numbers.get("active_units")
    units = "" if active is None else f", {active:.0f} of {cfg.latent_dim} units active"
    ways = [*_likelihood(cfg, numbers.get("recon")), *_objective(cfg)]
    if steps is not None and steps < FEW:
        ways.append(f"{steps} training steps are few: set a larger trainer.max_epochs")
    if not ways:
        ways = ["let the KL count less at first (objective=beta_elbo +schedule@objective.beta=linear)"]
        ways += ["or leave some of it free (objective=free_bits)"]
    return f"the latents are unused: {name} {known:.3f} nats{units}. Ways out: {'; '.join(ways)}"


def _likelihood(cfg: DictConfig, recon: float | None) -> list[str]:
    """Ways out if the likelihood expects more noise than the errors of the decoder, or cannot expect little noise."""
    kind, scale = cfg.likelihood._target_.rpartition(".")[2], cfg.likelihood.get("scale")
    learned = "likelihood=gaussian_shared learns its scale"
    if kind in ENTROPY and recon is not None and recon / prod(cfg.data.image_shape) < ENTROPY[kind] + log(scale):
        return [f"likelihood.scale={scale:.3g} is more than the errors of the decoder: {learned}"]
    if kind == "ContinuousBernoulli" or cfg.likelihood.get("allow_grey"):
        return [f"this likelihood is never narrow: {learned}"]
    return []


def _objective(cfg: DictConfig) -> list[str]:
    """Ways out if a weight of the KL is above 1, or the KL has a target."""
    kind = cfg.objective._target_.rpartition(".")[2]
    ends = {key: _end(cfg.objective[key]) for key in WEIGHTS.get(kind, ())}
    ways = [f"objective.{key}={end:g} weighs the KL: lower it" for key, end in ends.items() if end > 1]
    if kind == "Capacity":
        ways.append("objective.capacity is the KL that training aims at: set a larger end, or fewer steps")
    return ways


def _end(number: Any) -> float:
    """The last value of a number or a schedule."""
    return float(number.get("end", number.get("value", 0))) if isinstance(number, DictConfig) else number
