"""Likelihoods `params -> p(x | z, c)`: `(..., P*C, H, W)` to a Distribution, batch `(...)`, event `(C, H, W)`.

Each says its `support`, the set of pixel values its probabilities sum or integrate to one over, from the
chain `binary < levels < unit < real`: {0, 1}, the 256 levels k/255, [0, 1], the real line. It scores data
whose values lie in that set. On `binary` and `levels` it is a mass, else a density.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent
from torch.distributions import Normal as TorchNormal

__all__ = ["SUPPORTS", "Bernoulli", "Normal"]

SUPPORTS = ("binary", "levels", "unit", "real")


class Bernoulli(nn.Module):
    """`log p(x | z) = sum x log s(l) + (1 - x) log(1 - s(l))` with logits l: the negative of `bce`, summed.

    Arguments:
        allow_grey: Score grey values in [0, 1] too, as is customary. These cross-entropies are no
            probabilities (nothing sums to one), so the ELBO is then recorded as no bound.
    """

    support = "binary"

    def __init__(self, allow_grey: bool = False) -> None:
        super().__init__()
        self.allow_grey = allow_grey

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent Bernoulli, batch `(...)`, event `(C, H, W)`."""
        return _Bits(TorchBernoulli(logits=params, validate_args=False), 3, validate_args=False)


class _Bits(Independent):
    """Torch's independent Bernoulli, summed before its sign is turned: a pass over all pixels less, and one back."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if logits.shape != value.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        bce = F.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -bce.sum(dim=(-3, -2, -1))


class Normal(nn.Module):
    """`p(x | z) = N(x; params, scale^2)`, one fixed scale for every pixel.

    With scale = sqrt(1/2), `-log p(x | z) = sum (x - params)^2 + (CHW / 2) log pi`: the sum of squared
    errors (`sse`) and the constant that makes it a density.

    Arguments:
        scale: Standard deviation of a pixel, in units of the pixel range [0, 1].
    """

    support = "real"

    def __init__(self, scale: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"likelihood.scale={scale}: a standard deviation is positive")
        self.scale = scale

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchNormal(params, self.scale, validate_args=False), 3, validate_args=False)
