"""Objectives `(model, x, y, step) -> loss, draw`: one scalar to minimise, in nats per image, and its draw.

An objective owns the number of latents per image and the gradient estimator, and gets what it scores from `model.draw`.
Its weights enter the loss only: `elbo`, `recon` and `kl` of the draw mean the same for every objective. `step` is a 0-d
tensor on the device; any number may be a schedule over it (`vae_exp.schedules`). `Objective` has what it may state
beside, such as `monitor`, the metric that best checkpoint and early stopping follow.
"""

from vae_exp.objectives.aggregate import DIP, MMD, BetaTCVAE
from vae_exp.objectives.elbo import ELBO, BetaELBO, Capacity, FreeBits, Recon
from vae_exp.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE
from vae_exp.objectives.model import Model, Objective
from vae_exp.objectives.persistent import PersistentMCEM
from vae_exp.objectives.supervised import SemiSupervised
from vae_exp.objectives.wake import MCEM, WakeSleep

__all__ = [
    "CIWAE",
    "DIP",
    "ELBO",
    "IWAE",
    "MCEM",
    "MIWAE",
    "MMD",
    "PIWAE",
    "BetaELBO",
    "BetaTCVAE",
    "Capacity",
    "FreeBits",
    "Model",
    "Objective",
    "PersistentMCEM",
    "Recon",
    "SemiSupervised",
    "WakeSleep",
]
