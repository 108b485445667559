"""The autoencoder: no density over z, hence no bound."""

from typing import Any

from torch import Tensor

from vae_exp.models.vae import VAE
from vae_exp.objectives import Recon

__all__ = ["AE"]


class AE(VAE):
    """A deterministic autoencoder: one code for an image, trained on `recon` alone.

    With a corruption it is a denoising one (Vincent et al., 2008). It has no prior, no kl and no elbo: it logs `recon`
    and `loss`.
    """

    bounds = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.objective, Recon) or self.prior(None) is not None:
            raise ValueError(
                "model=ae has no density over its codes, hence no prior and no other objective than the "
                "reconstruction: leave prior=none objective=recon, or choose model=vae"
            )

    def log_marginal(self, x: Tensor, y: Tensor | None = None, num_samples: int = 5000) -> Tensor:
        """Refused: without a density over the codes there is none of images.

        Raises:
            ValueError: Always.
        """
        raise ValueError("an autoencoder has no prior and gives images no probability: choose model=vae")
