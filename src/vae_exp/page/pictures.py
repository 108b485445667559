"""The pictures of a run for its page: those that exist, and those that are missing."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vae_exp.config import ConfigError
from vae_exp.page.embedded import data_url, picture
from vae_exp.records import read_made
from vae_exp.runs.folder import fingerprint
from vae_exp.runs.trained import Trained
from vae_exp.what.make import make

__all__ = ["fill_in", "is_stale", "pictures", "undrawn"]

# The section of each picture; pictures that are not in this table come last.
SECTIONS = {"samples": "samples", "classes": "samples", "reconstructions": "reconstructions"}
SECTIONS |= {"manifold": "latents", "traversal": "latents", "kl_per_dim": "latents"}
ALT = {
    "samples": "A grid of images that the model made from latents of its prior",
    "classes": "Images that the model made of each class, one row for each class",
    "reconstructions": "Images above their reconstructions",
    "manifold": "The images decoded from a grid over two latent dimensions",
    "traversal": "Images along one latent dimension in each row, with the other dimensions fixed",
    "kl_per_dim": "The KL of each latent dimension in the evaluation",
}


def undrawn(folder: Path, cfg: DictConfig) -> list[str]:
    """The pictures that a page needs and the run does not have, by their names in `conf/what/`."""
    wanted = ["samples", "reconstructions", "manifold" if cfg.latent_dim == 2 else "traversal"]
    there = {made["what"] for made in _made(folder) if not made["is_stale"] and all(map(picture, made["files"]))}
    return [what for what in wanted if what not in there]


def fill_in(trained: Trained) -> dict[str, str]:
    """Makes the pictures that are missing.

    Returns:
        By name, the reason why a picture was not made: it has no meaning for the run, or the data are missing.
    """
    refused = {}
    for what in undrawn(trained.folder, trained.cfg):
        try:
            make(trained, what, by="report")
        except ConfigError as error:
            refused[what] = str(error)
    return refused


def pictures(folder: Path, cfg: DictConfig) -> dict[str, list[dict[str, Any]]]:
    """The pictures of each section of the page: name, data URL, size, and what else is known about each."""
    one_image = tuple(reversed(cfg.data.image_shape[1:]))
    figures: list[tuple[Path, dict[str, Any]]] = [
        (path, {"what": path.stem, "content": {}, "is_stale": False})
        for path in sorted((folder / "images").glob("*.png"))
        if path.stem not in ("elbo", "recon")  # the page draws these curves itself
    ]
    figures += [(path, made) for made in _made(folder) for path in made["files"]]
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in (*SECTIONS.values(), "more")}
    for path, made in figures:
        known = picture(path)
        if known is not None and known["size"] != one_image:  # files of a single image are for other uses
            known |= {"stem": path.stem, "by": made["content"].get("by", known["by"])}
            known["source"] = "" if known["tiles"] else data_url(path)
            known["alt"] = ALT.get(made["what"], f"{made['what']}: {path.stem}")
            sections[SECTIONS.get(made["what"], "more")].append(made | known)
    return sections


def is_stale(content: dict[str, Any], weights: Path) -> bool:
    """Whether the checkpoint has changed since a result was computed from it; False if that is unknown."""
    now = fingerprint(weights)
    return now is not None and content.get("weights", now) != now


def _made(folder: Path) -> list[dict[str, Any]]:
    """What `vae_exp.what.make` wrote into `images/`, in training or in a command."""
    made = []
    for path in sorted((folder / "images").glob("*/*.json"), key=lambda path: (path.stem == "classes", path.stem)):
        content = read_made(path) if path.stem == path.parent.name else {}
        if content:
            weights = folder / "checkpoints" / f"{content['checkpoint']}.ckpt"
            known = {
                "content": content,
                "is_stale": is_stale(content, weights),
                "files": sorted(path.parent.glob("*.png")),
            }
            made.append({"what": path.stem, **known})
    return made
