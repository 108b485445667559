"""In which precision numbers are computed: the one place that asks for float64, which Apple's `mps` does not have."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["at_least_float32", "exact", "full_precision", "on_cpu"]


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Mixed precision is for encoder and decoder; densities are built and summed in float32."""
    kind = x.device.type
    # Entering torch's own context costs time even where there is nothing to switch off.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """What a network gave in half precision, in float32; all else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def exact(x: Tensor) -> torch.dtype:
    """float64, for sums over many numbers on the device of x; float32 on `mps`."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def on_cpu(x: Tensor) -> Tensor:
    """x on the CPU in float64. It is moved first and widened there, so that any device will do."""
    return x.cpu().to(torch.float64)
