"""Priors `c -> p(z | c)`: context `(B, context_dim)` or None to a Distribution, batch `()` or `(B,)`, event `(D,)`.

The interface is `zuko.lazy.LazyDistribution`: zuko's flows and mixtures are priors by yaml alone
(`conf/prior/mixture.yaml`).
"""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, register_kl

__all__ = ["NoPrior", "StandardNormal"]


class StandardNormal(nn.Module):
    """`p(z) = N(z; 0, I)`, whatever the context.

    Arguments:
        latent_dim: D.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        # Buffers follow the model to its device; they are constants, so no checkpoint holds them.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, c: Tensor | None = None) -> Independent:
        """`c ->` Independent normal, batch `()`, event `(D,)`."""
        return Independent(_Unit(self.loc, self.scale, validate_args=False), 1, validate_args=False)


class _Unit(Normal):
    """N(0, 1): its KL needs neither its mean nor its scale."""


@register_kl(Normal, _Unit)
def _kl_normal_unit(q: Normal, p: _Unit) -> Tensor:
    return 0.5 * torch.addcmul(q.scale.square() - 1, q.loc, q.loc) - q.scale.log()


class NoPrior(nn.Module):
    """No density over z: that of an autoencoder."""

    def forward(self, c: Tensor | None = None) -> None:
        """None, whatever the context."""
