"""The mass on binary pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent

from vae_exp.parts import Likelihood

__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    """`log p(x | z) = sum x log s(l) + (1 - x) log(1 - s(l))` with logits l: the negative of `bce`, summed.

    Arguments:
        allow_grey: Score grey values in [0, 1] too, as is customary. These cross-entropies are no
            probabilities (nothing sums to one), so the ELBO is then recorded as no bound.
    """

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
