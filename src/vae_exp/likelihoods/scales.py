"""Means and scales of likelihoods: their allowed values, and how the output of a network becomes one."""

import math
from typing import Literal

from torch import Tensor

__all__ = ["Mean", "bounded", "check_bounds", "check_mean", "check_params", "check_positive", "mean_of"]

Mean = Literal["identity", "sigmoid"]


def check_mean(mean: Mean) -> Mean:
    """Returns the name; raises ValueError if it is not one of the two."""
    if mean not in ("identity", "sigmoid"):
        raise ValueError(f"likelihood.mean={mean}: choose identity or sigmoid")
    return mean


def mean_of(params: Tensor, mean: Mean) -> Tensor:
    """The parameters themselves, or their sigmoid, which is in [0, 1]."""
    return params.sigmoid() if mean == "sigmoid" else params


def check_positive(name: str, scale: float | None) -> float:
    """Returns the scale; raises ValueError, which names the key, if it is not positive."""
    if scale is None or scale <= 0:
        raise ValueError(f"likelihood.{name}={scale}: a scale must be positive")
    return scale


def check_params(given: int, needed: int) -> int:
    """Returns `params_per_pixel`; raises ValueError if it is not the number that the likelihood needs."""
    if given != needed:
        raise ValueError(f"likelihood.params_per_pixel={given}: this likelihood needs {needed}")
    return given


def check_bounds(min_scale: float | None, max_scale: float | None, or_else: str = "") -> tuple[float, float]:
    """Returns the bounds; raises ValueError, which names the keys, unless 0 < min_scale < max_scale.

    Arguments:
        min_scale: The lower one.
        max_scale: The upper one.
        or_else: What a likelihood takes besides, for the message.
    """
    if min_scale is None or max_scale is None or not 0 < min_scale < max_scale:
        raise ValueError(
            f"likelihood.min_scale={min_scale} must lie between 0 and likelihood.max_scale={max_scale}{or_else}"
        )
    return min_scale, max_scale


def bounded(raw: Tensor, low: float, high: float) -> Tensor:
    """A scale between `low` and `high`, whose logarithm is a sigmoid of the parameter."""
    return (math.log(low) + (math.log(high) - math.log(low)) * raw.sigmoid()).exp()
