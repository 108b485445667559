"""The autoencoder: no density over z, so no bound."""

from collections.abc import Mapping
from typing import Any

from vae_exp.models.vae import VAE, Ability
from vae_exp.objectives import Recon

__all__ = ["AE"]


class AE(VAE):
    """A deterministic autoencoder: one code for an image, trained on `recon` alone.

    With a corruption it is a denoising one (Vincent et al., 2008). It has no prior, no kl and no elbo: it logs `recon`
    and `loss`.
    """

    bounds = None
    lacks: Mapping[Ability, str] = dict.fromkeys(
        ("density", "prior", "slope"),
        "an autoencoder has no density over its codes, so no prior, no elbo and no log p(x): choose model=vae",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.objective, Recon) or self.prior(None) is not None:
            raise ValueError(
                "model=ae has no density over its codes, hence no prior and no other objective than the "
                "reconstruction: leave prior=none objective=recon, or choose model=vae"
            )
