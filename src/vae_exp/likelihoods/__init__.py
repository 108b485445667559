"""Likelihoods `params -> p(x | z, c)`: `(..., P*C, H, W)` to a Distribution, batch `(...)`, event `(C, H, W)`.

Each says its `support`, the set of pixel values its probabilities sum or integrate to one over, from the
chain `binary < levels < unit < real`: {0, 1}, the 256 levels k/255, [0, 1], the real line. It scores data
whose values lie in that set. On `binary` and `levels` it is a mass, else a density. Given z pixels are
independent, and the `base_dist` of the Distribution scores each by itself.
"""

from vae_exp.likelihoods.bits import Bernoulli
from vae_exp.likelihoods.levels import Categorical, DiscretizedLogistic
from vae_exp.likelihoods.real import Gaussian, GaussianShared, Laplace, Normal, SigmaVAE
from vae_exp.likelihoods.unit import ContinuousBernoulli

__all__ = [
    "SUPPORTS",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "GaussianShared",
    "Laplace",
    "Normal",
    "SigmaVAE",
]

SUPPORTS = ("binary", "levels", "unit", "real")
