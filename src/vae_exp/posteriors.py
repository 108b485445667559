"""Posteriors `h -> q(z | x, c)`: features `(B, F)` to a Distribution with batch `(B,)` and event `(D,)`.

A posterior owns the heads that turn features into its parameters, so any `zuko` flow conditioned on
F features is one as it stands.
"""

from torch import Tensor, nn
from torch.distributions import Independent, Normal

__all__ = ["DiagonalNormal"]


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
