"""The density of a row whose columns are of different kinds: Nazabal et al. (2020), arXiv:1807.03653."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Normal as TorchNormal

from vae_exp.columns import Column, RowsOf, columns_of, moments, on_line
from vae_exp.likelihoods.counts import GammaPoisson, PoissonCounts, log_rate
from vae_exp.likelihoods.scales import bounded, check_bounds
from vae_exp.parts import Likelihood

__all__ = ["Columns"]

Count = Literal["negative_binomial", "poisson"]
CONCENTRATION = (0.01, 1e4)


class Columns(Likelihood):
    """Each column by its own: a normal, a log-normal for `positive`, counts, a Bernoulli, a categorical.

    The density is one in the table's own units: a row is scored as it stands in the file. Means and scales of the
    training rows are where the columns start from: a normal has the mean `m + s a` and the scale `s sigma`, where a and
    sigma come from the decoder and m and s are mean and standard deviation of the column. A missing entry (nan) has no
    term, so the ELBO is that of the entries that are there (Mattei & Frellsen, 2019).

    Arguments:
        columns: The columns, see `vae_exp.columns.columns_of`.
        count: The mass on counts, `negative_binomial` or `poisson`.
        min_scale: Smallest standard deviation of a normal, in units of that of its column; of a log-normal, of the log.
        max_scale: Largest standard deviation, same units.
        params_per_pixel: At least 2, and the number of categories of any column.

    Raises:
        ValueError: If a column needs more params, or an argument is out of its range.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        columns: Sequence[Mapping[str, Any]],
        count: Count = "negative_binomial",
        min_scale: float = 0.01,
        max_scale: float = 100.0,
        params_per_pixel: int = 2,
    ) -> None:
        super().__init__()
        self.columns = columns_of(columns)
        if count not in ("negative_binomial", "poisson"):
            raise ValueError(f"likelihood.count={count}: choose negative_binomial or poisson")
        self.count: Count = count
        self.bounds = check_bounds(min_scale, max_scale)
        needed = max([2, *(len(column.categories) for column in self.columns)])
        if params_per_pixel < needed:
            raise ValueError(f"likelihood.params_per_pixel={params_per_pixel}: these columns need {needed}")
        self.params_per_pixel = params_per_pixel
        self.register_buffer("shift", torch.zeros(len(self.columns)))
        self.register_buffer("scale", torch.ones(len(self.columns)))

    def forward(self, params: Tensor) -> Independent:
        """`(..., P, 1, D) ->` Independent columns, batch `(...)`, event `(1, 1, D)`."""
        of_kinds: dict[str, list[int]] = {}
        for d, column in enumerate(self.columns):
            of_kinds.setdefault(column.kind, []).append(d)
        # (..., P, 1, D) -> P of (..., 1, 1, D)
        each = {kind: self._of(kind, params[..., places].unsqueeze(-4), places) for kind, places in of_kinds.items()}
        return Independent(_Columns(self.columns, each, of_kinds), 3, validate_args=False)

    def _of(self, kind: str, params: Tensor, places: list[int]) -> Distribution:
        """The distribution of the columns of one kind, from params `(..., 1, P, 1, D')`."""
        first, second = params[..., 0, :, :], params[..., 1, :, :]
        shift, scale = self.shift[places], self.scale[places]
        if kind in ("real", "positive"):
            normal = TorchNormal if kind == "real" else TorchLogNormal
            return normal(shift + scale * first, scale * bounded(second, *self.bounds), validate_args=False)
        if kind == "count":
            rate = shift + log_rate(first)
            poisson = self.count == "poisson"
            return PoissonCounts(rate) if poisson else GammaPoisson(rate, bounded(second, *CONCENTRATION))
        if kind == "binary":
            return Bernoulli(logits=first, validate_args=False)
        sizes = torch.tensor([len(self.columns[d].categories) for d in places], device=params.device)
        is_none = torch.arange(params.shape[-3], device=params.device)[:, None, None] >= sizes
        return TorchCategorical(logits=params.masked_fill(is_none, -torch.inf).movedim(-3, -1), validate_args=False)

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Takes mean and standard deviation of each column from the training rows; of a count the log of its mean."""
        lines, counts = [], []
        for x, _ in batches:
            lines.append(on_line(x, self.columns).cpu())
            counts.append(x.flatten(1).cpu())
        (mean, deviation), (plain, _) = moments(lines), moments(counts)
        for d, column in enumerate(self.columns):
            if column.kind in ("real", "positive"):
                self.shift[d], self.scale[d] = mean[d], deviation[d]
            elif column.kind == "count":
                self.shift[d] = math.log(max(float(plain[d]), 1e-3))


class _Columns(Distribution):
    """Single entries; those that are missing have no term."""

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)

    def __init__(
        self, columns: tuple[Column, ...], each: dict[str, Distribution], places: dict[str, list[int]]
    ) -> None:
        self.columns, self.each, self.places = columns, each, places
        self.order = torch.tensor([d for group in places.values() for d in group]).argsort()
        batch = next(iter(each.values())).batch_shape
        super().__init__(torch.Size((*batch[:-1], len(columns))), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The rows that it scores."""
        return RowsOf(self.columns)

    @property
    def mean(self) -> Tensor:
        """Of numbers the mean, of bits the probability of a 1, of categories the most probable one."""
        return self._joined({kind: _typical(kind, one) for kind, one in self.each.items()})

    def log_prob(self, value: Tensor) -> Tensor:
        known = ~value.isnan()
        filled = torch.where(known, value, 1.0)  # in the support of every kind but a categorical of one category
        terms = {}
        for kind, one in self.each.items():
            entries = filled[..., self.places[kind]]
            if kind == "categorical":
                logits = one.logits  # type: ignore[attr-defined]
                places = entries.round().long().clamp(max=logits.shape[-1] - 1)[..., None]
                places, logits = torch.broadcast_tensors(places, logits)
                terms[kind] = logits.gather(-1, places[..., :1])[..., 0]
                continue
            terms[kind] = one.log_prob(entries)
        return torch.where(known, self._joined(terms), 0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            shape = torch.Size(sample_shape)
            return self._joined({kind: one.sample(shape).to(self._dtype) for kind, one in self.each.items()})

    @property
    def _dtype(self) -> torch.dtype:
        return torch.get_default_dtype()

    def _joined(self, each: dict[str, Tensor]) -> Tensor:
        """The columns in their order."""
        return torch.cat([each[kind] for kind in self.places], dim=-1)[..., self.order]


def _typical(kind: str, one: Distribution) -> Tensor:
    if kind == "categorical":
        return one.logits.argmax(dim=-1).to(one.logits.dtype)  # type: ignore[attr-defined]
    return one.mean
