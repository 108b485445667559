"""Images of each class, drawn from a conditional model."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.runs.trained import Trained
from vae_exp.samplers import sampler
from vae_exp.what import codes

__all__ = ["classes"]

MOST_ROWS = 40


@torch.no_grad()
def classes(trained: Trained, out: Path, num_images: int) -> dict[str, Any]:
    """Writes `classes.png`: a row for each class, means of p(x|z,y); z in a column comes from the same noise.

    Where y is attributes, there is a row for each value of each of them, and the others are what is typical of the
    training images; of many attributes the first ones are shown.

    Raises:
        ConfigError: If `num_images`, the number in a row, is below 1.
        NoMeaningError: If the model is given no label.
    """
    model = trained.model
    if not model.context_dim:
        raise NoMeaningError(
            f"what=classes: {type(model).__name__} is given no label and cannot draw a chosen class: train model=cvae "
            "or m2, or see what=edit and what=embeddings"
        )
    if num_images < 1:
        raise ConfigError(f"num_images={num_images}: at least 1 in each row is needed")
    condition = model.condition
    typical = condition.typical(1)[0]
    settings = [each for d in range(len(condition.names)) for each in condition.varied(typical, d)]
    shown = settings if condition.num_classes else settings[:MOST_ROWS]
    latents, images = sampler(trained, "prior"), []
    for _, y in shown:
        trained.reseed("classes")
        c = model.context(y.expand(num_images, *y.shape).to(trained.data.device))
        images.append(codes.decode(model, latents(num_images, c), c))
    first = "" if len(shown) == len(settings) else f" (the first {len(shown)} of {len(settings)})"
    title = (
        f"{trained.cfg.name}\nmeans of p(x|z,y), a row for each {condition.axis}{first}\n"
        "z from the prior by the same noise in a column"
    )
    rows = [name for name, _ in shown]
    plots.grid(trained.shown(torch.cat(images)), title, out / "classes.png", rows=rows, columns=num_images)
    return {}
