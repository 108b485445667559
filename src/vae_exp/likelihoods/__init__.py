"""Likelihoods `params -> p(x | z, c)`: `(..., P*C, H, W)` to a Distribution, batch `(...)`, event `(C, H, W)`.

The `support` of the Distribution, one of `torch.distributions.constraints`, is the set of images over which its
probabilities sum or integrate to one: pixels in {0, 1}, the 256 levels k/255 (`vae_exp.supports.levels`), [0, 1],
counts, or all real numbers. A likelihood can score data only if their values lie in this set. Over a discrete set it
is a mass, otherwise a density. Given z, pixels are independent: the `base_dist` of the Distribution scores each one
separately.
"""

from vae_exp.likelihoods.bits import Bernoulli
from vae_exp.likelihoods.columns import Columns
from vae_exp.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vae_exp.likelihoods.levels import Categorical, DiscretizedLogistic
from vae_exp.likelihoods.real import Gaussian, GaussianPixels, GaussianShared, Laplace, Normal, SigmaVAE
from vae_exp.likelihoods.unit import ContinuousBernoulli

__all__ = [
    "Bernoulli",
    "Categorical",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "GaussianPixels",
    "GaussianShared",
    "Laplace",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "SigmaVAE",
    "ZeroInflatedNegativeBinomial",
]
