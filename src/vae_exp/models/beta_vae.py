"""The beta-VAE (openreview.net, Sy2fzU9gl): a VAE with one part fixed."""

from typing import Any

from vae_exp.models.vae import VAE
from vae_exp.objectives import BetaELBO

__all__ = ["BetaVAE"]


class BetaVAE(VAE):
    """The beta-VAE (Higgins et al., 2017): a VAE trained on `BetaELBO`. Its ledger is a VAE's, without beta."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.objective, BetaELBO):
            raise ValueError(
                f"model=beta_vae is trained on objective=beta_elbo, not on {type(self.objective).__name__}: "
                "for another objective choose model=vae"
            )
