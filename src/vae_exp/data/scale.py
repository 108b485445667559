"""Real numbers on the scale on which networks learn: shifted and divided by what the training images say."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vae_exp.data.files import InFiles
from vae_exp.data.representation import Representation
from vae_exp.data.split import AnySplit, Split
from vae_exp.precision import exact

__all__ = ["Scale", "Scaling", "check_scale", "fitted", "is_far", "remedy", "rescaled"]

Scaling = Literal["none", "standardize", "range"]
FAR = 10.0  # a mean or a standard deviation above it is far from [0, 1]


class Scale(NamedTuple):
    """The model is given `(x - shift) / factor`, one shift and one factor for all numbers of all images."""

    shift: float
    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        """Numbers of the data as the model is given them."""
        return (x - self.shift) / self.factor


def check_scale(scaling: Scaling, representation: Representation) -> Scaling:
    """The scaling itself, if pixels are real numbers or it is none.

    Raises:
        ValueError: If pixels are of another kind.
    """
    if scaling != "none" and not representation.can_be_scaled:
        raise ValueError(
            f"data.scale={scaling} is for real numbers, data.levels=null, and these are {representation.title}: "
            "set data.scale=none"
        )
    return scaling


def fitted(scaling: Scaling, x: Tensor) -> Scale:
    """The scale of training images `(N, C, H, W)`: mean and standard deviation, or smallest number and range.

    Raises:
        ValueError: If all numbers are the same.
    """
    if scaling == "standardize":
        spread, shift = torch.std_mean(x.to(exact(x)), correction=0)
        found = Scale(float(shift), float(spread))
    else:
        found = Scale(float(x.min()), float(x.max() - x.min()))
    if not found.factor > 0:
        raise ValueError(f"data.scale={scaling}: all numbers of the training images are {found.shift:g}")
    return found


def rescaled(
    splits: Mapping[str, AnySplit], scaling: Scaling, known: Scale | None
) -> tuple[dict[str, AnySplit], Scale]:
    """All splits on one scale: the one that is known, or the one that fits the training images alone.

    Raises:
        ValueError: If the images are read during training, so that nothing can be fitted to all of them.
    """
    read = {
        name: split.read() if isinstance(split, InFiles) and split.in_memory else split
        for name, split in splits.items()
    }
    in_memory = {name: split for name, split in read.items() if isinstance(split, Split)}
    if len(in_memory) < len(read):
        raise ValueError(
            f"data.scale={scaling} needs all images in memory, but these are read during training: "
            "set data.source.in_memory=true"
        )
    scale = known or fitted(scaling, in_memory["train"].x)
    return {name: replace(split, x=scale(split.x)) for name, split in in_memory.items()}, scale


def remedy(split: AnySplit) -> str:
    """What to set where the real numbers of a split in memory are far from [0, 1]; empty where they are not."""
    if not isinstance(split, Split) or not is_far(split.x):
        return ""
    return (
        f"data.levels=null: the numbers lie in [{float(split.x.min()):g}, {float(split.x.max()):g}], far from [0, 1]: "
        "data.scale=standardize or data.scale=range fits them"
    )


def is_far(x: Tensor) -> bool:
    """Whether numbers are so far from [0, 1] that a network that expects those will learn badly, or not at all."""
    spread, mean = torch.std_mean(x.to(exact(x)), correction=0)
    return bool(mean.abs() > FAR or spread > FAR or 0 < spread < 1 / FAR**2)
