"""Images and what the model makes of them."""

from pathlib import Path
from typing import Any

from vae_exp import plots
from vae_exp.trained import Trained

__all__ = ["reconstructions"]


def reconstructions(trained: Trained, out: Path, num_images: int) -> dict[str, Any]:
    """Writes `reconstructions.png`: the first images of the split above theirs."""
    x, y = trained.images(num_images)
    recon = trained.model.reconstruct(x, y)
    title = f"{trained.cfg.name}\n{trained.split} images and their reconstructions"
    plots.reconstructions(trained.shown(x), trained.shown(recon), title, out / "reconstructions.png")
    return {}
