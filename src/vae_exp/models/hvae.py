"""Several stochastic layers (arXiv:1509.00519)."""

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from vae_exp.models.vae import VAE

__all__ = ["HVAE"]


class HVAE(VAE):
    """A VAE with latents `z = (z_1, ..., z_L)`: `p(x | z_1) p(z_1 | z_2) ... p(z_L)` (Burda et al., 2016).

    Posterior and prior are chains of conditionals (`vae_exp.chains`), each one distribution over all layers; the
    decoder reads the first. With L = 1 it is `VAE`.

    Arguments:
        latent_dim: Width of z_1; the other arguments are those of `VAE`.
        upper_dims: Widths of z_2 to z_L.
    """

    def __init__(self, *args: Any, latent_dim: int, upper_dims: list[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if upper_dims and self.posterior.sizes != [latent_dim, *upper_dims]:
            raise ValueError(
                f"model.upper_dims={upper_dims}: {type(self.posterior).__name__} has not these layers. "
                "Ways out: posterior=bottom_up prior=top_down, or model=vae"
            )
        self.latent_dim = latent_dim
        self.upper_dims = upper_dims

    def code(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """`q(z_1 | x, c)`, batch `(B,)`, event `(D_1,)`."""
        q = self.encode(x, y)
        return q.first if self.upper_dims else q  # type: ignore[attr-defined]

    def decode(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """`(..., B, D), (B, context_dim) ->` `p(x | z_1, c)`, batch `(..., B)`, event `(C, H, W)`."""
        return super().decode(z[..., : self.latent_dim], c)
