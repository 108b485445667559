"""Callbacks of training: checkpoints, scores, pictures, curves, pages, use of the latents, speed, the progress bar."""

from vae_exp.callbacks.checkpoint import Checkpoint, Ending, Patience, Snapshots
from vae_exp.callbacks.gradients import GradientVariance
from vae_exp.callbacks.latents import Latents
from vae_exp.callbacks.marginal import Marginal
from vae_exp.callbacks.pictures import Curves, Explorer, Pictures
from vae_exp.callbacks.progress import Progress, Speed
from vae_exp.callbacks.scores import Scores

__all__ = [
    "Checkpoint",
    "Curves",
    "Ending",
    "Explorer",
    "GradientVariance",
    "Latents",
    "Marginal",
    "Patience",
    "Pictures",
    "Progress",
    "Scores",
    "Snapshots",
    "Speed",
]
