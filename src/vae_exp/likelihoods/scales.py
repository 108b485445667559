"""Means and scales of likelihoods: what they may be, and how a network gives them."""

import math
from typing import Literal

from torch import Tensor

__all__ = ["Mean", "bounded", "check_bounds", "check_mean", "check_params", "check_positive", "mean_of"]

Mean = Literal["identity", "sigmoid"]


def check_mean(mean: Mean) -> Mean:
    """Returns the name; a ValueError if it is none."""
    if mean not in ("identity", "sigmoid"):
        raise ValueError(f"likelihood.mean={mean}: choose identity or sigmoid")
    return mean


def mean_of(params: Tensor, mean: Mean) -> Tensor:
    """The parameters themselves, or their sigmoid, which lies in [0, 1]."""
    return params.sigmoid() if mean == "sigmoid" else params


def check_positive(name: str, scale: float) -> float:
    """Returns the scale; a ValueError that names the key if it is none."""
    if scale <= 0:
        raise ValueError(f"likelihood.{name}={scale}: a scale is positive")
    return scale


def check_params(given: int, needed: int) -> int:
    """Returns `params_per_pixel`; a ValueError if it is not what the likelihood reads."""
    if given != needed:
        raise ValueError(f"likelihood.params_per_pixel={given}: this likelihood reads {needed}")
    return given


def check_bounds(min_scale: float, max_scale: float) -> tuple[float, float]:
    """Returns the bounds; a ValueError that names the keys if they are none."""
    if not 0 < min_scale < max_scale:
        raise ValueError(f"likelihood.min_scale={min_scale} must lie between 0 and likelihood.max_scale={max_scale}")
    return min_scale, max_scale


def bounded(raw: Tensor, low: float, high: float) -> Tensor:
    """From `low` to `high`, geometrically."""
    return (math.log(low) + (math.log(high) - math.log(low)) * raw.sigmoid()).exp()
