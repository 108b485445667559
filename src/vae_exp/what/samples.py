"""Images of the model's own."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots
from vae_exp.config import NoMeaningError
from vae_exp.trained import Trained

__all__ = ["samples"]


def samples(trained: Trained, out: Path, num_images: int) -> dict[str, Any]:
    """Writes `samples.png`: means of p(x|z), z from the prior, the labels of a conditional model in turn.

    Raises:
        NoMeaningError: If there is no prior.
    """
    model = trained.model
    if model.bounds is None:
        raise NoMeaningError("an autoencoder has no prior to draw from: choose model=vae")
    y = torch.arange(num_images, device=model.device) % model.context_dim if model.context_dim else None
    images = model.sample(num_images, y)
    given = "p(x|z)" if y is None else "p(x|z,y)"
    title = f"{trained.cfg.name}\nsamples: means of {given}, z from the prior"
    plots.grid(trained.shown(images), title, out / "samples.png")
    return {}
