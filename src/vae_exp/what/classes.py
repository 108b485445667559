"""What a conditional model makes of each class."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots
from vae_exp.config import NoMeaningError
from vae_exp.metrics.options import at_least
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["classes"]


@torch.no_grad()
def classes(trained: Trained, out: Path, num_images: int) -> dict[str, Any]:
    """Writes `classes.png`: a row for each class, means of p(x|z,y); down a column z is made of the same noise.

    Raises:
        ConfigError: If `num_images`, of a row, is below 1.
        NoMeaningError: If the model is told no label.
    """
    model = trained.model
    if not model.context_dim:
        raise NoMeaningError(
            f"what=classes: {type(model).__name__} is told no label, so nothing asks it for a class: train model=cvae "
            "or m2, or see what=edit and what=embeddings"
        )
    at_least(1, num_images=num_images)
    images = []
    for k in range(model.context_dim):
        trained.reseed("classes")
        c = model.context(torch.full((num_images,), k, device=trained.data.device))
        p = model.prior(c)
        images.append(codes.decode(model, p.sample() if p.batch_shape else p.sample((num_images,)), c))
    title = (
        f"{trained.cfg.name}\nmeans of p(x|z,y), a row for each class, z from the prior by the same noise in a column"
    )
    rows = [f"y = {k}" for k in range(model.context_dim)]
    plots.grid(trained.shown(torch.cat(images)), title, out / "classes.png", rows=rows, columns=num_images)
    return {}
