"""Images of the model's own."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots, samplers
from vae_exp.runs.trained import Trained

__all__ = ["samples"]


@torch.no_grad()
def samples(trained: Trained, out: Path, num_images: int, sampler: str = "prior") -> dict[str, Any]:
    """Writes `samples.png`: means of p(x|z), the labels of a conditional model in turn.

    Arguments:
        trained: The run.
        out: The folder that is written to.
        num_images: How many.
        sampler: Where z comes from: prior, gmm or flow, see `vae_exp.samplers`.

    Returns:
        Of a sampler that was fitted, its log density of validation codes and the prior's, nats a code.

    Raises:
        NoMeaningError: If there is no prior; if latents are discrete and a density is to be fitted to them.
    """
    model = trained.model
    draw = samplers.sampler(trained, sampler)
    y = torch.arange(num_images, device=model.device) % model.context_dim if model.context_dim else None
    trained.reseed("samples")
    c = model.context(y)
    images = model.decode(draw(num_images, c), c).mean
    given = "p(x|z)" if y is None else "p(x|z,y)"
    title = f"{trained.cfg.name}\nsamples: means of {given}, z from {draw.name}"
    plots.grid(trained.shown(images), title, out / "samples.png")
    return draw.numbers
