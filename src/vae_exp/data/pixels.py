"""Pixels: what they are in the files, and what a model sees of them."""

from typing import Literal

import torch
from torch import Tensor

from vae_exp.data.pictures import Pictures

__all__ = ["Levels", "bits", "check_pixels", "floats", "kind"]

Levels = int | Literal["unit"] | None  # values of a byte; real numbers in [0, 1]; any real numbers


def kind(levels: Levels) -> str:
    """Of pixels in the files, for people."""
    if isinstance(levels, int):
        return f"{levels} levels"
    return "real numbers in [0, 1]" if levels else "real numbers"


def check_pixels(name: str, x: Tensor | Pictures, levels: Levels) -> None:
    """Holds the pixels of the split `name` against `data.levels`; of pictures in files their type alone.

    Raises:
        ValueError: If they are of another type, or out of their range.
    """
    is_real = not isinstance(levels, int)
    given = "null" if levels is None else levels
    if x.dtype != (torch.float32 if is_real else torch.uint8):
        ways = "2 to 256" if x.dtype == torch.uint8 else "unit for real numbers in [0, 1], null for any others"
        raise ValueError(f"data.levels={given} is for {kind(levels)}, the pixels are {x.dtype}: set {ways}")
    if isinstance(x, Pictures):
        return
    if levels == 2 and ((x != 0) & (x != 255)).any():
        raise ValueError("data.levels=2 is for bits, bytes that are 0 or 255, and there are others: set 256")
    if is_real and not x.isfinite().all():
        raise ValueError(f"data.levels={given}: some pixels of {name} are no numbers")
    if levels == "unit" and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"data.levels=unit, but the pixels of {name} lie in [{x.min():g}, {x.max():g}]: "
            "scale them to [0, 1], or set data.levels=null for any real numbers"
        )


def floats(x: Tensor) -> Tensor:
    """Bytes as numbers in [0, 1], floats as they are."""
    return x / 255 if x.dtype == torch.uint8 else x


def bits(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Of 255 equally likely numbers, k are below the level k: bits of probability k / 255, exactly.

    On a CPU this is faster than `bernoulli`, and bytes become floats faster than bools.
    """
    numbers = torch.randint(255, x.shape, dtype=torch.uint8, device=x.device, generator=generator)
    return (numbers < x).view(torch.uint8)
