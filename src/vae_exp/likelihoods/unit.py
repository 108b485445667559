"""Densities on [0, 1]. Continuous Bernoulli: arXiv:1907.06845."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Independent

from vae_exp.parts import Likelihood

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(Likelihood):
    """A density on [0, 1] (Loaiza-Ganem & Cunningham, 2019): `x l - softplus(l) + log C(l)` with logits l.

    `C(l) = l / tanh(l / 2)` is the factor that makes the cross-entropy of grey pixels a density.
    """

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent continuous Bernoulli, batch `(...)`, event `(C, H, W)`."""
        return Independent(_UnitContinuous(logits=params, validate_args=False), 3, validate_args=False)


class _UnitContinuous(TorchContinuousBernoulli):
    """One pixel, as in torch but computed from the logits: from probabilities it is inaccurate near 0, 1/2 and 1."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.logits
        near = logits.abs() < 0.1
        far = torch.where(near, torch.ones_like(logits), logits)  # no 0 / 0, also not in the gradient
        series = math.log(2) + logits.square() / 12 - 7 * logits.pow(4) / 1440
        log_normaliser = torch.where(near, series, (far / (far / 2).tanh()).log())
        return value * logits - F.softplus(logits) + log_normaliser

    @property
    def mean(self) -> Tensor:
        logits = self.logits
        near = logits.abs() < 0.3
        far = torch.where(near, torch.ones_like(logits), logits)
        series = 0.5 + logits / 12 - logits.pow(3) / 720 + logits.pow(5) / 30240
        return torch.where(near, series, -1 / torch.expm1(-far) - 1 / far)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            # The inverse of the distribution function for |l|, with u in (0, 1]; for l < 0 it is mirrored.
            u = 1 - torch.rand(*sample_shape, *self.logits.shape, dtype=self.logits.dtype, device=self.logits.device)
            far = self.logits.abs().clamp(min=1e-3)
            x = torch.where(self.logits.abs() < 1e-3, u, 1 + (u + (1 - u) * (-far).exp()).log() / far).clamp(0, 1)
            return torch.where(self.logits > 0, x, 1 - x)
