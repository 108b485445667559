"""Likelihoods `params -> p(x | z, c)`: `(..., P*C, H, W)` to a Distribution, batch `(...)`, event `(C, H, W)`.

Each says its `support`, the set of pixel values its probabilities sum or integrate to one over, from the
chain `binary < levels < unit < real`: {0, 1}, the 256 levels k/255, [0, 1], the real line. It scores data
whose values lie in that set. On `binary` and `levels` it is a mass, else a density.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Distribution, Independent
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal as TorchNormal

__all__ = [
    "SUPPORTS",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "GaussianShared",
    "Laplace",
    "Normal",
]

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
        self.scale = _check_positive("scale", scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchNormal(params, self.scale, validate_args=False), 3, validate_args=False)


class ContinuousBernoulli(nn.Module):
    """A density on [0, 1] (Loaiza-Ganem & Cunningham, 2019): `x l - softplus(l) + log C(l)` with logits l.

    `C(l) = l / tanh(l / 2)` is what makes the cross-entropy of grey pixels a density.
    """

    support = "unit"

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent continuous Bernoulli, batch `(...)`, event `(C, H, W)`."""
        return _UnitContinuous(TorchContinuousBernoulli(logits=params, validate_args=False), 3, validate_args=False)


class _UnitContinuous(Independent):
    """Torch's, with normaliser and mean from the logits: from probabilities they fail near 0, 1/2 and 1."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        near = logits.abs() < 0.1
        far = torch.where(near, torch.ones_like(logits), logits)  # no 0 / 0, in the gradient neither
        series = math.log(2) + logits.square() / 12 - 7 * logits.pow(4) / 1440
        log_normaliser = torch.where(near, series, (far / (far / 2).tanh()).log())
        return (value * logits - F.softplus(logits) + log_normaliser).sum(dim=(-3, -2, -1))

    @property
    def mean(self) -> Tensor:
        logits = self.base_dist.logits
        near = logits.abs() < 0.3
        far = torch.where(near, torch.ones_like(logits), logits)
        series = 0.5 + logits / 12 - logits.pow(3) / 720 + logits.pow(5) / 30240
        return torch.where(near, series, -1 / torch.expm1(-far) - 1 / far)


class Gaussian(nn.Module):
    """`p(x | z) = N(x; mu, sigma^2)`, both from the decoder, for each pixel (Kingma & Welling, 2014).

    A density that can grow at a pixel without bound would be all that training seeks, so
    `log sigma` goes from `log min_scale` to `log max_scale` as a sigmoid does.

    Arguments:
        min_scale: Least standard deviation, in units of the pixel range [0, 1].
        max_scale: Greatest.
        params_per_pixel: 2; stated in yaml for the decoder to read.
    """

    support = "real"

    def __init__(self, min_scale: float = 0.01, max_scale: float = 1.0, params_per_pixel: int = 2) -> None:
        super().__init__()
        self.params_per_pixel = _check_params(params_per_pixel, 2)
        self.min_scale, self.max_scale = _check_bounds(min_scale, max_scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., 2C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        mu, raw = params.chunk(2, dim=-3)
        scale = _bounded(raw, self.min_scale, self.max_scale)
        return Independent(TorchNormal(mu, scale, validate_args=False), 3, validate_args=False)


class GaussianShared(nn.Module):
    """`p(x | z) = N(x; params, sigma^2)`, one learned scale for every pixel of every image.

    Arguments:
        init_scale: sigma before training, in units of the pixel range [0, 1].
    """

    support = "real"

    def __init__(self, init_scale: float = 0.1) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(_check_positive("init_scale", init_scale))))

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchNormal(params, self.log_scale.exp(), validate_args=False), 3, validate_args=False)


class Laplace(nn.Module):
    """`p(x | z) = exp(-|x - params| / scale) / (2 scale)` for each pixel: absolute errors as a density.

    Arguments:
        scale: b; the standard deviation is `sqrt(2) b`. In units of the pixel range [0, 1].
    """

    support = "real"

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = _check_positive("scale", scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent Laplace, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchLaplace(params, self.scale, validate_args=False), 3, validate_args=False)


class DiscretizedLogistic(nn.Module):
    """A mass on the 256 levels: a logistic cut at the midpoints between them (Salimans et al., 2017).

    Level 0 takes all that lies below, 255 all that lies above, so the masses add up to one.

    Arguments:
        min_scale: Least scale of the logistic, in units of the pixel range [0, 1].
        max_scale: Greatest.
        params_per_pixel: 2; stated in yaml for the decoder to read.
    """

    support = "levels"

    def __init__(self, min_scale: float = 0.001, max_scale: float = 1.0, params_per_pixel: int = 2) -> None:
        super().__init__()
        self.params_per_pixel = _check_params(params_per_pixel, 2)
        self.min_scale, self.max_scale = _check_bounds(min_scale, max_scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., 2C, H, W) ->` Independent discretised logistic, batch `(...)`, event `(C, H, W)`."""
        mu, raw = params.chunk(2, dim=-3)
        return Independent(_LevelLogistic(mu, _bounded(raw, self.min_scale, self.max_scale)), 3, validate_args=False)


class _LevelLogistic(Distribution):
    """Of one pixel: levels k / 255 with the masses of a logistic between `(k - 1/2) / 255` and `(k + 1/2) / 255`."""

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)

    def __init__(self, mu: Tensor, scale: Tensor) -> None:
        self.mu, self.scale = mu, scale
        super().__init__(mu.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        upper = (value + 0.5 / 255 - self.mu) / self.scale
        lower = (value - 0.5 / 255 - self.mu) / self.scale
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), without a difference of nearly equal numbers.
        width = (-torch.expm1(-1 / (255 * self.scale))).log()
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inner = torch.where(value > 1 - 0.5 / 255, above, below + above + width)
        return torch.where(value < 0.5 / 255, below, inner)

    @property
    def mean(self) -> Tensor:
        # E[k] is the sum over the midpoints of the probability to lie above.
        total = torch.zeros_like(self.mu)
        for k in range(255):
            total += ((self.mu - (k + 0.5) / 255) / self.scale).sigmoid()
        return total / 255

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            u = torch.rand(*sample_shape, *self.mu.shape, device=self.mu.device)
            return (255 * (self.mu + self.scale * torch.logit(u, eps=1e-7))).round().clamp(0, 255) / 255


class Categorical(nn.Module):
    """A mass on the 256 levels, each with a logit of its own: `softmax(params)`.

    Arguments:
        params_per_pixel: 256; stated in yaml for the decoder to read.
    """

    support = "levels"

    def __init__(self, params_per_pixel: int = 256) -> None:
        super().__init__()
        self.params_per_pixel = _check_params(params_per_pixel, 256)

    def forward(self, params: Tensor) -> Independent:
        """`(..., 256C, H, W) ->` Independent categorical, batch `(...)`, event `(C, H, W)`."""
        logits = params.unflatten(-3, (256, -1)).movedim(-4, -1)
        return Independent(_LevelCategorical(logits=logits, validate_args=False), 3, validate_args=False)


class _LevelCategorical(TorchCategorical):
    """Torch's, of one pixel, over the levels k / 255 instead of their numbers k."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob((255 * value).round())

    @property
    def mean(self) -> Tensor:
        return self.probs @ torch.linspace(0, 1, 256, device=self.probs.device, dtype=self.probs.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return super().sample(torch.Size(sample_shape)) / 255


def _check_positive(name: str, scale: float) -> float:
    if scale <= 0:
        raise ValueError(f"likelihood.{name}={scale}: a scale is positive")
    return scale


def _check_params(given: int, needed: int) -> int:
    if given != needed:
        raise ValueError(f"likelihood.params_per_pixel={given}: this likelihood reads {needed}")
    return given


def _check_bounds(min_scale: float, max_scale: float) -> tuple[float, float]:
    if not 0 < min_scale < max_scale:
        raise ValueError(f"likelihood.min_scale={min_scale} must lie between 0 and likelihood.max_scale={max_scale}")
    return min_scale, max_scale


def _bounded(raw: Tensor, low: float, high: float) -> Tensor:
    """From `low` to `high`, geometrically."""
    return (math.log(low) + (math.log(high) - math.log(low)) * raw.sigmoid()).exp()
