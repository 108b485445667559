"""Callbacks of training: checkpoints, pictures, pages, curves, the use of the latents, speed and the progress bar."""

from vae_exp.callbacks.checkpoint import Checkpoint, Ending, Patience
from vae_exp.callbacks.latents import Latents
from vae_exp.callbacks.pictures import Curves, Explorer, Pictures
from vae_exp.callbacks.progress import Progress, Speed

__all__ = ["Checkpoint", "Curves", "Ending", "Explorer", "Latents", "Patience", "Pictures", "Progress", "Speed"]
