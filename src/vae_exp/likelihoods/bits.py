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
        allow_grey: Also score grey values in [0, 1], as many papers do. These cross-entropies are not
            log-probabilities (nothing sums to one), so the run then records that its ELBO is not a bound.

    Example:
        >>> px = Bernoulli()(torch.zeros(2, 1, 3, 3))  # two images of nine fair bits
        >>> px.log_prob(torch.ones(2, 1, 3, 3))  # 9 log 1/2
        tensor([-6.2383, -6.2383])
    """

    def __init__(self, allow_grey: bool = False) -> None:
        super().__init__()
        self.allow_grey = allow_grey

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent Bernoulli, batch `(...)`, event `(C, H, W)`."""
        return _Bits(TorchBernoulli(logits=params, validate_args=False), 3, validate_args=False)


class _Bits(Independent):
    """Torch's independent Bernoulli. It sums before it changes the sign, which saves passes over all pixels."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        if logits.shape != value.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        bce = F.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -bce.sum(dim=(-3, -2, -1))
