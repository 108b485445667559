"""A draw: latents for a batch of images and everything they are scored with."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, wraps
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

__all__ = ["Draw", "full_precision"]

T = TypeVar("T")


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Mixed precision is for encoder and decoder; densities are built and summed in float32."""
    kind = x.device.type
    # Entering torch's own context costs time even where there is nothing to switch off.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _term(compute: Callable[["Draw"], T]) -> "cached_property[T]":
    """A cached property in full precision: within the caller's autocast, networks of a flow would run in half."""

    @wraps(compute)
    def exact(draw: "Draw") -> T:
        with full_precision(draw.z):
            return compute(draw)

    return cached_property(exact)


class Draw:
    """K latents for each of B images, and the three distributions of the model at them.

    Every term is in nats per image and computed when first asked for. None is ever weighted.

    Arguments:
        x: The images that are scored, `(B, C, H, W)`.
        z: Latents, `(K, B, D)`.
        q: `q(z | x, c)`, batch `(B,)`, event `(D,)`.
        p: `p(z | c)`, batch `()` or `(B,)`, event `(D,)`.
        px: `p(x | z, c)`, batch `(K, B)`, event `(C, H, W)`.
    """

    def __init__(self, x: Tensor, z: Tensor, q: Distribution, p: Distribution, px: Distribution) -> None:
        self.x, self.z, self.q, self.p, self.px = x, z, q, p, px

    @_term
    def log_px(self) -> Tensor:
        """`log p(x | z, c)`, `(K, B)`."""
        return self.px.log_prob(self.x.expand(len(self.z), *self.x.shape))

    @_term
    def log_pz(self) -> Tensor:
        """`log p(z | c)`, `(K, B)`."""
        return self.p.log_prob(self.z)

    @_term
    def log_qz(self) -> Tensor:
        """`log q(z | x, c)`, `(K, B)`."""
        return self.q.log_prob(self.z)

    @_term
    def kl_per_dim(self) -> Tensor | None:
        """`KL(q(z_d | x, c) || p(z_d | c))`, `(B, D)`, where both factorise and torch knows it; else None."""
        if not (isinstance(self.q, Independent) and isinstance(self.p, Independent)):
            return None
        try:
            return kl_divergence(self.q.base_dist, self.p.base_dist)
        except NotImplementedError:
            return None

    @_term
    def kl(self) -> Tensor:
        """`KL(q(z | x, c) || p(z | c))`, `(B,)`: the closed form where torch has one, else Monte Carlo."""
        if self.kl_per_dim is not None:
            return self.kl_per_dim.sum(dim=-1)
        try:
            return kl_divergence(self.q, self.p)
        except NotImplementedError:
            return (self.log_qz - self.log_pz).mean(dim=0)

    @_term
    def recon(self) -> Tensor:
        """`-E_q log p(x | z, c)`, `(B,)`, the mean over the K latents."""
        return -self.log_px.mean(dim=0)

    @_term
    def elbo(self) -> Tensor:
        """`E_q log p(x | z, c) - KL(q || p)`, `(B,)`: a lower bound of `log p(x | c)` (Kingma & Welling, 2014)."""
        return -(self.recon + self.kl)
