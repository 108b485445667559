"""Posterior collapse: whether the latents are unused, and what to change."""

from collections.abc import Mapping
from math import e, log, pi, prod, sqrt
from typing import Any

from omegaconf import DictConfig

__all__ = ["unused_latents"]

UNUSED = 0.1  # nats per image that z knows of the image, of all dimensions together
FEW = 1000  # training steps before which the latents of many models are not used yet
ENTROPY = {"Normal": log(sqrt(2 * pi * e)), "Laplace": log(2 * e)}  # nats per pixel at a scale of 1
WEIGHTS = {"BetaELBO": ("beta",), "BetaTCVAE": ("alpha", "beta", "gamma")}  # of the parts of the KL


def unused_latents(cfg: DictConfig, metrics: Mapping[str, Any], steps: int | None) -> str | None:
    """One line for a run whose latents say nothing of the image, with ways out that fit its config; else None.

    What z says of the image is the mutual information of the two. The KL is at least that, so a small KL is enough to
    know that it is small. `active_units` is not: means can vary little and posteriors be narrower still.

    Arguments:
        cfg: The resolved config of the run.
        metrics: By `split/name`, nats per image: `kl` and, if they are known, `mutual_information`, `recon` and
            `active_units`. Those of test are read, else those of val, else of train. Without a KL (an autoencoder)
            nothing can be said.
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
        ways.append(f"{steps} training steps are few: give more trainer.max_epochs")
    if not ways:
        ways = ["let the KL count less at first (objective=beta_elbo +schedule@objective.beta=linear)"]
        ways += ["or leave some of it free (objective=free_bits)"]
    return f"the latents are unused: {name} {known:.3f} nats per image{units}. Ways out: {'; '.join(ways)}"


def _likelihood(cfg: DictConfig, recon: float | None) -> list[str]:
    """A likelihood that expects more noise than the errors of the decoder are, or cannot expect less."""
    kind, scale = cfg.likelihood._target_.rpartition(".")[2], cfg.likelihood.get("scale")
    learned = "likelihood=gaussian_shared learns its scale"
    if kind in ENTROPY and recon is not None and recon / prod(cfg.data.image_shape) < ENTROPY[kind] + log(scale):
        return [f"likelihood.scale={scale:.3g} is more than the errors of the decoder: {learned}"]
    if kind == "ContinuousBernoulli" or cfg.likelihood.get("allow_grey"):
        return [f"this likelihood is never narrow: {learned}"]
    return []


def _objective(cfg: DictConfig) -> list[str]:
    """Weights of the KL above 1, and a target for it."""
    kind = cfg.objective._target_.rpartition(".")[2]
    ends = {key: _end(cfg.objective[key]) for key in WEIGHTS.get(kind, ())}
    ways = [f"objective.{key}={end:g} weighs the KL: lower it" for key, end in ends.items() if end > 1]
    if kind == "Capacity":
        ways.append("objective.capacity is the KL that training aims at: let it grow further, or in fewer steps")
    return ways


def _end(number: Any) -> float:
    """The last value of a number or a schedule."""
    return float(number.get("end", number.get("value", 0))) if isinstance(number, DictConfig) else number
