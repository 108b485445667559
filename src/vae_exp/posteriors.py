"""Posteriors `h -> q(z | x, c)`: features `(B, F)` to a Distribution with batch `(B,)` and event `(D,)`.

A posterior owns the heads that turn features into its parameters, so any `zuko` flow conditioned on
F features is one as it stands.
"""

from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

__all__ = ["DiagonalNormal", "Point"]


class DiagonalNormal(nn.Module):
    """`q(z | h) = N(z; mu(h), diag(exp(logvar(h))))` (Kingma & Welling, 2014).

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(in_features, latent_dim)
        self.logvar = nn.Linear(in_features, latent_dim)

    def forward(self, h: Tensor) -> Independent:
        """`(B, F) ->` Independent normal, batch `(B,)`, event `(D,)`."""
        scale = (0.5 * self.logvar(h)).exp()
        return Independent(Normal(self.mu(h), scale, validate_args=False), 1, validate_args=False)


class Point(nn.Module):
    """All mass at one point, a linear function of the features: the code of an autoencoder.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(in_features, latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        """`(B, F) ->` a point without a density, batch `(B,)`, event `(D,)`."""
        return _At(self.mu(h))


class _At(Distribution):
    arg_constraints = {}  # noqa: RUF012 (torch's name for it)
    has_rsample = True

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._mean.expand(*sample_shape, *self._mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ValueError("posterior=point has no density: choose model=ae, or another posterior")
