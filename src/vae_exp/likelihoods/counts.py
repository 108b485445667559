"""Masses on the counts 0, 1, 2, ... Negative binomials with a size factor: Lopez et al. (2018)."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributions
from torch.distributions import Distribution, Independent, constraints

from vae_exp.likelihoods.scales import bounded, check_params
from vae_exp.parts import Likelihood
from vae_exp.precision import exact

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]

Size = Literal["none", "total"]
STRAIGHT = 15.0  # above it a rate is a straight line in its parameter


class _Counts(Likelihood):
    """What the three share: rates, and the size factor.

    Without a size factor the rate of a pixel is `m exp(a)`, a from the decoder and m the mean of all training counts.
    With `size_factor=total` it is `N softmax(a)`, where N is the sum of the counts of the image that is scored. The
    masses of all images with the sum N then add up to less than one, so the ELBO is a bound of log p(x | N), the
    probability of x among the images with its sum. Samples and means take the mean sum of the training images for N.
    """

    mean_count: Tensor

    def __init__(self, size_factor: Size, params_per_pixel: int, needed: int) -> None:
        super().__init__()
        if size_factor not in ("none", "total"):
            raise ValueError(f"likelihood.size_factor={size_factor}: choose none or total")
        self.params_per_pixel = check_params(params_per_pixel, needed)
        self.given = "total" if size_factor == "total" else ""
        self.register_buffer("mean_count", torch.ones(()))

    def forward(self, params: Tensor) -> Independent:
        """`(..., P*C, H, W) ->` Independent counts, batch `(...)`, event `(C, H, W)`."""
        first, *rest = params.chunk(self.params_per_pixel, dim=-3)
        if not self.given:
            return Independent(self._of(self.mean_count.log() + log_rate(first), rest), 3, validate_args=False)
        shares = first.flatten(-3).log_softmax(dim=-1).view(first.shape)
        typical = self.mean_count * math.prod(first.shape[-3:])
        return Independent(_OfTotal(shares, lambda rate: self._of(rate, rest), typical), 3, validate_args=False)

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets m to the mean of all training counts, before the first step of a new run."""
        total, num = 0.0, 0
        for x, _ in batches:
            total, num = total + float(x.sum(dtype=exact(x))), num + x.numel()
        self.mean_count.fill_(max(total / num, 1 / num))

    def _of(self, rate: Tensor, rest: Sequence[Tensor]) -> Distribution:
        """Counts with this log rate, of single pixels."""
        raise NotImplementedError


class Poisson(_Counts):
    """`p(x | z) = exp(-r) r^x / x!` for each pixel.

    Arguments:
        size_factor: `none`, or `total` for the size factor.
        params_per_pixel: 1.
    """

    def __init__(self, size_factor: Size = "none", params_per_pixel: int = 1) -> None:
        super().__init__(size_factor, params_per_pixel, needed=1)

    def _of(self, rate: Tensor, rest: Sequence[Tensor]) -> Distribution:
        return PoissonCounts(rate)


class NegativeBinomial(_Counts):
    """A Poisson whose rate is drawn from a gamma with mean r and concentration k: the variance is `r + r^2 / k`.

    Arguments:
        size_factor: `none`, or `total` for the size factor.
        min_concentration: Smallest k, the most overdispersed.
        max_concentration: Largest k, nearly a Poisson.
        params_per_pixel: 2, rate and concentration.
    """

    def __init__(
        self,
        size_factor: Size = "none",
        min_concentration: float = 0.01,
        max_concentration: float = 1e4,
        params_per_pixel: int = 2,
    ) -> None:
        super().__init__(size_factor, params_per_pixel, needed=2)
        self.bounds = check_concentration(min_concentration, max_concentration)

    def _of(self, rate: Tensor, rest: Sequence[Tensor]) -> Distribution:
        return GammaPoisson(rate, bounded(rest[0], *self.bounds))


class ZeroInflatedNegativeBinomial(_Counts):
    """A negative binomial, or with probability `sigmoid(l)` a zero (Lopez et al., 2018).

    Arguments:
        size_factor: `none`, or `total` for the size factor.
        min_concentration: As of `NegativeBinomial`.
        max_concentration: As of `NegativeBinomial`.
        params_per_pixel: 3, rate, concentration and the logit l.
    """

    def __init__(
        self,
        size_factor: Size = "none",
        min_concentration: float = 0.01,
        max_concentration: float = 1e4,
        params_per_pixel: int = 3,
    ) -> None:
        super().__init__(size_factor, params_per_pixel, needed=3)
        self.bounds = check_concentration(min_concentration, max_concentration)

    def _of(self, rate: Tensor, rest: Sequence[Tensor]) -> Distribution:
        return _ZeroInflated(GammaPoisson(rate, bounded(rest[0], *self.bounds)), rest[1])


class PoissonCounts(distributions.Poisson):
    """torch's, by the logarithm of its rate, which stays finite where the rate itself is rounded to 0."""

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.log_rate - self.rate - (value + 1).lgamma()


class GammaPoisson(distributions.NegativeBinomial):
    """torch's, by the logarithm of its mean r and its concentration k, which may be large."""

    def __init__(self, log_rate: Tensor, concentration: Tensor) -> None:
        super().__init__(concentration, logits=log_rate - concentration.log(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        odds, k = self.logits, self.total_count
        rest = value * F.logsigmoid(odds) + k * F.logsigmoid(-odds)
        return _log_rising(k, value) - (value + 1).lgamma() + rest


class _ZeroInflated(Distribution):
    """Counts, or zeros by a logit."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, counts: GammaPoisson, logits: Tensor) -> None:
        self.counts, self.logits = counts, logits
        super().__init__(logits.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (-self.logits).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        kept, mean = (-self.logits).sigmoid(), self.counts.mean
        return kept * (self.counts.variance + self.logits.sigmoid() * mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        counted = F.logsigmoid(-self.logits) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), counted), counted)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            counts = self.counts.sample(sample_shape)
            return counts * (torch.rand_like(counts) >= self.logits.sigmoid())


class _OfTotal(Distribution):
    """Counts whose rates are shares of the sum of the image that is scored; of a typical sum for mean and samples."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, shares: Tensor, of: Callable[[Tensor], Distribution], typical: Tensor) -> None:
        self.shares, self.of = shares, of
        self.typical = of(typical.log() + shares)
        super().__init__(shares.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.typical.mean

    @property
    def variance(self) -> Tensor:
        return self.typical.variance

    def log_prob(self, value: Tensor) -> Tensor:
        total = value.sum(dim=(-3, -2, -1), keepdim=True)
        return self.of(total.clamp(min=1).log() + self.shares).log_prob(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.typical.sample(sample_shape)


def log_rate(params: Tensor) -> Tensor:
    """Log rates: the parameters, whose exponential above 15 goes on as a straight line, so that no rate overflows."""
    above = (params - STRAIGHT).clamp(min=0)
    return torch.where(params > STRAIGHT, STRAIGHT + above.log1p(), params)


def check_concentration(low: float, high: float) -> tuple[float, float]:
    """Returns the bounds; raises ValueError, which names the keys, unless 0 < low < high."""
    if not 0 < low < high:
        raise ValueError(
            f"likelihood.min_concentration={low} must lie between 0 and likelihood.max_concentration={high}"
        )
    return low, high


def _log_rising(k: Tensor, x: Tensor) -> Tensor:
    """`log Gamma(k + x) / Gamma(k)`. For a large k by Stirling's series, as the difference of two logs loses digits."""
    large = k.clamp(min=8)
    series = (large - 0.5) * (x / large).log1p() + x * (large + x).log() - x + _stirling(large + x) - _stirling(large)
    small = k.clamp(max=8)
    return torch.where(k > 8, series, (small + x).lgamma() - small.lgamma())


def _stirling(k: Tensor) -> Tensor:
    """What `log Gamma(k)` has beside `(k - 1/2) log k - k + log(2 pi) / 2`, to 3e-10 for k of at least 8."""
    square = k.square().reciprocal()
    return (1 / 12 - square * (1 / 360 - square / 1260)) / k
