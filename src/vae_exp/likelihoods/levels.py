"""Masses on the 256 levels k / 255. Discretised logistic: arXiv:1701.05517."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent

from vae_exp.likelihoods.scales import bounded, check_bounds, check_params
from vae_exp.parts import Likelihood
from vae_exp.supports import levels

__all__ = ["Categorical", "DiscretizedLogistic"]


class DiscretizedLogistic(Likelihood):
    """A mass on the 256 levels: a logistic cut at the midpoints between them (Salimans et al., 2017).

    Level 0 also has all the mass below it, and level 255 all the mass above it, so the masses add up to one.

    Arguments:
        min_scale: Smallest scale of the logistic, in units of the pixel range [0, 1].
        max_scale: Largest scale.
        params_per_pixel: 2. It is in the yaml so that the decoder can read it.
    """

    def __init__(self, min_scale: float = 0.001, max_scale: float = 1.0, params_per_pixel: int = 2) -> None:
        super().__init__()
        self.params_per_pixel = check_params(params_per_pixel, 2)
        self.min_scale, self.max_scale = check_bounds(min_scale, max_scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., 2C, H, W) ->` Independent discretised logistic, batch `(...)`, event `(C, H, W)`."""
        mu, raw = params.chunk(2, dim=-3)
        return Independent(_LevelLogistic(mu, bounded(raw, self.min_scale, self.max_scale)), 3, validate_args=False)


class _LevelLogistic(Distribution):
    """One pixel: the level k / 255 has the mass of a logistic between `(k - 1/2) / 255` and `(k + 1/2) / 255`."""

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)
    support = levels

    def __init__(self, mu: Tensor, scale: Tensor) -> None:
        self.mu, self.scale = mu, scale
        super().__init__(mu.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        upper = (value + 0.5 / 255 - self.mu) / self.scale
        lower = (value - 0.5 / 255 - self.mu) / self.scale
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), which subtracts no nearly equal numbers.
        width = (-torch.expm1(-1 / (255 * self.scale))).log()
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inner = torch.where(value > 1 - 0.5 / 255, above, below + above + width)
        return torch.where(value < 0.5 / 255, below, inner)

    @property
    def mean(self) -> Tensor:
        # E[k] is the sum, over the midpoints, of the probability of a value above the midpoint. 15 midpoints at a time:
        # all together would need 255 times the memory, and one at a time would export thousands of nodes.
        midpoints = (torch.arange(255, device=self.mu.device, dtype=self.mu.dtype) + 0.5) / 255
        mu, scale = self.mu.unsqueeze(-1), self.scale.unsqueeze(-1)
        total = sum(((mu - some) / scale).sigmoid().sum(dim=-1) for some in midpoints.split(15))
        return total / 255

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            u = torch.rand(*sample_shape, *self.mu.shape, device=self.mu.device)
            return (255 * (self.mu + self.scale * torch.logit(u, eps=1e-7))).round().clamp(0, 255) / 255


class Categorical(Likelihood):
    """A mass on the 256 levels, with one logit for each level: `softmax(params)`.

    Arguments:
        params_per_pixel: 256. It is in the yaml so that the decoder can read it.
    """

    def __init__(self, params_per_pixel: int = 256) -> None:
        super().__init__()
        self.params_per_pixel = check_params(params_per_pixel, 256)

    def forward(self, params: Tensor) -> Independent:
        """`(..., 256C, H, W) ->` Independent categorical, batch `(...)`, event `(C, H, W)`."""
        logits = params.unflatten(-3, (256, -1)).movedim(-4, -1)
        return Independent(_LevelCategorical(logits=logits, validate_args=False), 3, validate_args=False)


class _LevelCategorical(TorchCategorical):
    """Torch's categorical for one pixel, over the levels k / 255 instead of the whole numbers k."""

    support = levels

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob((255 * value).round())

    @property
    def mean(self) -> Tensor:
        return self.probs @ torch.linspace(0, 1, 256, device=self.probs.device, dtype=self.probs.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)) / 255
