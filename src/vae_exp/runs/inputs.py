"""The user's own pictures, prepared as those that a run was trained on."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.data.listing import listing

__all__ = ["files_of", "prepared"]

log = logging.getLogger("vae_exp")


def files_of(paths: str | Sequence[str], data: Images) -> list[str]:
    """Files, and the pictures in folders; a line says how they are prepared.

    Raises:
        ConfigError: If there is none, or a folder cannot be read.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths:
        raise ConfigError("input=[]: give at least one file or folder, or null for images of the split")
    files = [file for path in paths for file in (_inside(Path(path)) if Path(path).is_dir() else [path])]
    channels, height, width = data.image_shape
    log.info(
        "input           %d picture%s, prepared as in training: the middle in the run's proportions, %d by %d, %s",
        *(len(files), "s"[: len(files) > 1], width, height, "grey" if channels == 1 else "RGB"),
    )
    return files


def _inside(folder: Path) -> list[str]:
    try:
        found = listing(folder)
    except ValueError as error:
        raise ConfigError(f"input={folder}: {str(error).removeprefix('data.source.path: ')}") from error
    files = [str(where / name) for where, names in found.splits.values() for name in names]
    if not files:
        raise ConfigError(f"input={folder}: there is no picture in this folder that Pillow reads")
    for reason, number in found.left_out.items():
        log.info("input           left out in %s: %d %s", folder, number, reason)
    return files


def prepared(files: Sequence[str], data: Images) -> Tensor:
    """Pictures `(N, C, H, W)`, in the form in which the model is given test images.

    Raises:
        ConfigError: If a file is missing or not a picture, or its range is not that of the run.
    """
    pixels, levels = [], data.representation.levels
    for path in files:
        try:
            picture = data.source.picture(Path(path), data.image_shape, levels)
        except (OSError, ValueError) as error:
            raise ConfigError(f"input={path}: {error}") from error
        pixels.append(torch.from_numpy(picture.copy()))
    try:
        return data.represent(torch.stack(pixels)).to(data.device)
    except ValueError as error:
        if levels == 2:
            way = "the images of this run are bits: give files with only black and white pixels (0 and 255)"
            raise ConfigError(f"input: {way}") from error
        raise ConfigError(f"input: {error}") from error
