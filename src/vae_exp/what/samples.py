"""Images drawn from the model."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots, samplers
from vae_exp.metrics.options import at_least
from vae_exp.runs.trained import Trained

__all__ = ["samples"]

PIXELS = ("mean", "sample")


@torch.no_grad()
def samples(
    trained: Trained, out: Path, num_images: int, sampler: str = "prior", pixels: str | None = None
) -> dict[str, Any]:
    """Writes `samples.png`: images of p(x|z) at random latents; a conditional model gets the labels one after another.

    Arguments:
        trained: The run.
        out: The folder for the picture.
        num_images: Number of images.
        sampler: The density that z is drawn from: prior, gmm or flow, see `vae_exp.samplers`.
        pixels: What is shown of p(x|z): its `mean` (also for None), or a `sample`, with the noise of the likelihood.

    Returns:
        For a fitted sampler, the mean log density of validation codes under it and under the prior, nats per code.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no prior, or if a density cannot be fitted because latents are discrete.
    """
    at_least(1, num_images=num_images)
    pixels = pixels or "mean"
    if pixels not in PIXELS:
        raise ValueError(f"pixels={pixels}: choose {' or '.join(PIXELS)}")
    model = trained.model
    latents = samplers.sampler(trained, sampler)
    trained.reseed("samples")
    c = model.context(model.example_y(num_images))
    px = model.decode(latents(num_images, c), c)
    images = px.sample() if pixels == "sample" else px.mean
    given = "p(x|z)" if c is None else "p(x|z,y)"
    title = f"{trained.cfg.name}\nsamples: {pixels}s of {given}, z from {latents.name}"
    plots.grid(trained.shown(images), title, out / "samples.png")
    return latents.numbers
