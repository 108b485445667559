"""Images and their reconstructions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["reconstructions"]


def reconstructions(
    trained: Trained,
    out: Path,
    num_images: int,
    input: str | Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Writes `reconstructions.png`: the first images of the split, or files, above their reconstructions;
    for files also each reconstruction by itself.

    Raises:
        ConfigError: If a file is no picture like the run's, or a label is missing.
    """
    if num_images < 1:
        raise ConfigError(f"num_images={num_images}: at least 1 is needed")
    x, y, names = codes.given(trained, input, label, range(min(num_images, trained.num_images())))
    recon = trained.model.reconstruct(x, y)
    source = f"{trained.split_title} images" if input is None else "files"
    title = f"{trained.cfg.name}\n{source} and their reconstructions"
    plots.reconstructions(trained.shown(x), trained.shown(recon), title, out / "reconstructions.png")
    if input is not None:
        codes.save(trained, recon, names, out)
    return {}
