"""Callbacks of training: checkpoints, pictures, pages, curves, the use of the latents, speed and the progress bar."""

from vae_exp.callbacks.checkpoint import Checkpoint, Ending, Patience
from vae_exp.callbacks.gradients import GradientVariance
from vae_exp.callbacks.latents import Latents
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
    "Patience",
    "Pictures",
    "Progress",
    "Scores",
    "Speed",
]
