"""The models: a VAE is `p(z | c)`, `p(x | z, c)`, `q(z | x, c)` and an objective.

Letters: B images, K latents per image, D latent_dim, F encoder features, P params_per_pixel. Units are nats
per image: sums over pixels, means over images.

What changes the graphical model is a class here; what changes how it is trained is a part. A subclass overrides
one hook (`context`, `decode`, `draw`) or fixes one part; never a step.
"""

from vae_exp.models.ae import AE
from vae_exp.models.beta_vae import BetaVAE
from vae_exp.models.cvae import CVAE
from vae_exp.models.hvae import HVAE
from vae_exp.models.m2 import M2
from vae_exp.models.vae import VAE

__all__ = ["AE", "CVAE", "HVAE", "M2", "VAE", "BetaVAE"]
