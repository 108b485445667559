"""The user's own pictures, arrays and tables, prepared as those that a run was trained on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.data.listing import listing
from vae_exp.data.split import Split

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
    log.info("input           %d file%s, prepared as in training: %s", len(files), "s"[: len(files) > 1], _how(data))
    return files


def _how(data: Images) -> str:
    if data.representation.unit == "row":
        return "rows with the columns of the run's table"
    channels, height, width = data.image_shape
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    scaled = "" if data.scale is None else f", (x - {data.scale.shift:.6g}) / {data.scale.factor:.6g}"
    return f"the middle in the run's proportions, {width} by {height}, {colours}{scaled}"


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


def prepared(
    files: Sequence[str], data: Images, done: Callable[[int], Any]
) -> Iterator[tuple[list[str], Tensor, Tensor | None]]:
    """Names, items `(N, C, H, W)` as the model is given test images, and labels `(N,)` if all have one.

    In batches of `data.eval_batch_size`.

    Arguments:
        files: As `files_of` gives them.
        data: That of the run.
        done: Called with the number of files that were read.

    Raises:
        ConfigError: If a file is missing or not of the kind of the set, or its range is not that of the run.
    """
    size, waiting = data.eval_batch_size, 0
    read: list[Split] = []
    for place, path in enumerate(files):
        try:
            read.append(data.source.own(Path(path), data.image_shape, data.representation.levels))
        except (OSError, ValueError) as error:
            raise ConfigError(f"input={path}: {error}") from error
        waiting += len(read[-1].y)
        if waiting < size and place < len(files) - 1:
            continue
        x, y = _represented(torch.cat([one.x for one in read]), data), torch.cat([one.y for one in read])
        names = [str(name) for one in read for name in one.keys]  # type: ignore[union-attr]
        done(len(read))
        read, waiting = [], 0
        for start in range(0, len(names), size):
            label = y[start : start + size].to(data.device)
            known = label if label.dim() > 1 or bool((label >= 0).all()) else None  # attributes, or classes
            yield names[start : start + size], x[start : start + size].to(data.device), known


def _represented(x: Tensor, data: Images) -> Tensor:
    try:
        return data.represent(x)
    except ValueError as error:
        if data.representation.levels == 2:
            way = "the images of this run are bits: give files with only black and white pixels (0 and 255)"
            raise ConfigError(f"input: {way}") from error
        raise ConfigError(f"input: {error}") from error
