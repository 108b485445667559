"""Objectives `(model, x, y) -> loss, draw`: one scalar to minimise, in nats per image, and the draw behind it.

An objective owns the number of latents per image and asks `model.draw` for them. It weights terms in the
loss only: the draw's own `elbo`, `recon` and `kl` mean the same whatever the objective.
"""

from typing import Protocol

from torch import Tensor

from vae_exp.draws import Draw

__all__ = ["ELBO", "BetaELBO", "Model"]


class Model(Protocol):
    """What an objective knows of a model."""

    def draw(self, x: Tensor, y: Tensor | None, num_samples: int) -> Draw:
        """`(B, C, H, W), (B,) ->` K = num_samples latents for each image, and what they are scored with."""


def _check_num_samples(num_samples: int) -> int:
    if num_samples < 1:
        raise ValueError(f"objective.num_samples={num_samples}: at least one latent per image is needed")
    return num_samples


class ELBO:
    """`-elbo`, by reparametrised samples (Kingma & Welling, 2014).

    Arguments:
        num_samples: K, latents per image.
    """

    def __init__(self, num_samples: int = 1) -> None:
        self.num_samples = _check_num_samples(num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,) -> ` scalar loss, draw."""
        draw = model.draw(x, y, self.num_samples)
        return (draw.recon + draw.kl).mean(), draw


class BetaELBO:
    """`recon + beta * kl` (Higgins et al., 2017).

    Arguments:
        beta: Weight of the KL; 1 gives `ELBO`.
        num_samples: K, latents per image.
    """

    def __init__(self, beta: float, num_samples: int = 1) -> None:
        if beta < 0:
            raise ValueError(f"objective.beta={beta}: a weight of at least 0 is needed")
        self.beta = beta
        self.num_samples = _check_num_samples(num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,) -> ` scalar loss, draw."""
        draw = model.draw(x, y, self.num_samples)
        return (draw.recon + self.beta * draw.kl).mean(), draw
