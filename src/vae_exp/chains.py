"""Chains of conditionals: posterior and prior of a VAE with several stochastic layers (arXiv:1509.00519)."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_exp.layers import activation_class
from vae_exp.parts import Posterior, Prior
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal

__all__ = ["BottomUp", "Chain", "TopDown"]


class Chain(Distribution):
    """`p(v_1) p(v_2 | v_1) ... p(v_L | v_{L-1})` over the concatenation of all v, or of all in reverse.

    Arguments:
        first: `p(v_1)`, event `(D_1,)`.
        links: `v_l -> p(v_{l+1} | v_l)`, for each l but the last.
        sizes: D_1 to D_L, in the order of the concatenation.
        is_reversed: Whether the concatenation begins with v_L.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)
    has_rsample = True

    def __init__(
        self,
        first: Distribution,
        links: Sequence[Callable[[Tensor], Distribution]],
        sizes: Sequence[int],
        is_reversed: bool,
    ) -> None:
        self.first, self.links, self.sizes, self.is_reversed = first, links, list(sizes), is_reversed
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws v_1, then each v_l given the one before it."""
        v = [self.first.rsample(torch.Size(sample_shape))]
        for link in self.links:
            v.append(link(v[-1]).rsample())
        return torch.cat(v[::-1] if self.is_reversed else v, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the chain, `(..., D_1 + ... + D_L) -> (...)`."""
        v = list(value.split(self.sizes, dim=-1))
        if self.is_reversed:
            v.reverse()
        log_prob = self.first.log_prob(v[0])
        for link, (below, above) in zip(self.links, pairwise(v), strict=True):
            log_prob = log_prob + link(below).log_prob(above)
        return log_prob


def _links(part: str, sizes: Sequence[int], hidden: Sequence[int], activation: str) -> nn.ModuleList:
    act = activation_class(part, activation)
    links = nn.ModuleList()
    for fan_in, fan_out in pairwise(sizes):
        layers: list[nn.Module] = []
        widths = [fan_in, *hidden]
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), act()]
        links.append(nn.Sequential(*layers, DiagonalNormal(widths[-1], fan_out)))
    return links


class BottomUp(Posterior):
    """`q(z | h) = q(z_1 | h) q(z_2 | z_1) ... q(z_L | z_{L-1})`, each a diagonal normal (Burda et al., 2016).

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: Width of z_1.
        upper_dims: Widths of z_2 to z_L.
        hidden: Widths of the layers from one z to the next.
        activation: Name of a class in `torch.nn`.
    """

    sizes: list[int]

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        upper_dims: Sequence[int],
        hidden: Sequence[int] = (100, 100),
        activation: str = "Tanh",
    ) -> None:
        super().__init__()
        self.sizes = [latent_dim, *upper_dims]
        self.first = DiagonalNormal(in_features, latent_dim)
        self.links = _links("posterior", self.sizes, hidden, activation)

    def forward(self, h: Tensor) -> Distribution:
        """`(B, F) ->` Distribution, batch `(B,)`, event `(D_1 + ... + D_L,)`."""
        first = self.first(h)
        return Chain(first, list(self.links), self.sizes, is_reversed=False) if self.links else first


class TopDown(Prior):
    """`p(z) = p(z_1 | z_2) ... p(z_{L-1} | z_L) N(z_L; 0, I)`, each a diagonal normal (Burda et al., 2016).

    Arguments:
        latent_dim: Width of z_1.
        upper_dims: Widths of z_2 to z_L.
        hidden: Widths of the layers from one z to the next.
        activation: Name of a class in `torch.nn`.
    """

    def __init__(
        self, latent_dim: int, upper_dims: Sequence[int], hidden: Sequence[int] = (100, 100), activation: str = "Tanh"
    ) -> None:
        super().__init__()
        self.sizes = [latent_dim, *upper_dims]
        self.first = StandardNormal(self.sizes[-1])
        self.links = _links("prior", self.sizes[::-1], hidden, activation)

    def forward(self, c: Tensor | None = None) -> Distribution:
        """`c ->` Distribution, batch `()`, event `(D_1 + ... + D_L,)`; c is not read."""
        first = self.first(c)
        return Chain(first, list(self.links), self.sizes, is_reversed=True) if self.links else first
