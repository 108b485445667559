"""Distributions over latents `(D,)` that torch lacks, and what any distribution can be asked without an exception."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence, register_kl

__all__ = [
    "Mixture",
    "OneHots",
    "RelaxedOneHots",
    "closed_form_kl",
    "is_discrete",
    "mean_of",
    "sample_of",
    "variance_of",
]


def mean_of(q: Distribution) -> Tensor | None:
    """`E z`, `(..., D)`; None if q does not know it, as a flow."""
    try:
        return q.mean
    except NotImplementedError:
        return None


def variance_of(q: Distribution) -> Tensor | None:
    """The variance of each dimension, `(..., D)`; None if q does not know it, as a flow or a point."""
    try:
        return q.variance
    except NotImplementedError:
        return None


def is_discrete(q: Distribution) -> bool:
    """Whether q is over bits or categories."""
    try:
        return q.support is not None and q.support.is_discrete
    except NotImplementedError:  # chains, flows and points do not say; they are over real numbers
        return False


def closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """`KL(q || p)`, `(...)`, nats; None if torch has no closed form for the two."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def sample_of(p: Distribution, shape: Sequence[int] = ()) -> Tensor:
    """Samples `(*shape, ..., D)`, with a pathwise gradient if p has one.

    Raises:
        ValueError: If p cannot be sampled from.
    """
    try:
        return p.rsample(torch.Size(shape)) if p.has_rsample else p.sample(torch.Size(shape))
    except NotImplementedError as error:
        raise ValueError(f"prior: {type(p).__name__} cannot be sampled from; it needs a method sample") from error


class Mixture(Distribution):
    """`p(z) = sum_k w_k q_k(z)`.

    Torch's `MixtureSameFamily` takes the batch shape from the components alone; here weights `(B, K)` may share
    components `(K,)`, and a weight may be 0.

    Arguments:
        log_weights: `log w_k`, `(..., K)`, normalised; -inf leaves a component out.
        components: The `q_k`, batch `(K,)` or `(..., K)`, event `(D,)`.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)

    def __init__(self, log_weights: Tensor, components: Distribution) -> None:
        self.log_weights, self.components = log_weights, components
        batch = torch.broadcast_shapes(log_weights.shape, components.batch_shape)[:-1]
        super().__init__(batch, components.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of its components."""
        return self.components.support

    def log_prob(self, value: Tensor) -> Tensor:
        """`(..., D) -> (...)`."""
        return (self.log_weights + self.components.log_prob(value.unsqueeze(-2))).logsumexp(dim=-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`(*sample_shape, ..., D)`: a sample of each component, of which one is taken."""
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        k = _choose(self.log_weights.expand(*self.batch_shape, -1), sample_shape)
        own = shape[: len(shape) + 1 - len(self.components.batch_shape)]  # what the components lack of (..., K)
        each = self.components.sample(own)
        chosen = k[..., None, None].expand(*shape, 1, each.shape[-1])
        return each.gather(-2, chosen).squeeze(-2)


class _Blocks(constraints.Constraint):
    """The support of `OneHots`: blocks of another width, and bits, have no probability."""

    is_discrete = True
    event_dim = 1

    def __init__(self, categories: int) -> None:
        self.categories = categories

    def __repr__(self) -> str:
        return f"one-hot blocks of {self.categories}"


class OneHots(Distribution):
    """V independent variables of C categories, each a one-hot block; z is the blocks side by side, D = V C.

    Arguments:
        logits: `(..., V, C)`.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(dim=-1)
        super().__init__(logits.shape[:-2], torch.Size([logits.shape[-2] * logits.shape[-1]]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """One-hot blocks."""
        return _Blocks(self.log_probs.shape[-1])

    @property
    def mean(self) -> Tensor:
        """The probabilities, `(..., D)`."""
        return self.log_probs.exp().flatten(-2)

    @property
    def variance(self) -> Tensor:
        """`(..., D)`."""
        return self.mean * (1 - self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """`(..., D) -> (...)`; the blocks of `value` are one-hot."""
        return (value.unflatten(-1, self.log_probs.shape[-2:]) * self.log_probs).sum(dim=(-2, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`(*sample_shape, ..., D)`, zeros and ones."""
        k = _choose(self.log_probs, sample_shape)
        return F.one_hot(k, self.log_probs.shape[-1]).to(self.log_probs.dtype).flatten(-2)


class RelaxedOneHots(OneHots):
    """`OneHots` with Gumbel-softmax samples (Jang et al., 2017; Maddison et al., 2017); the KL is that of `OneHots`.

    Arguments:
        logits: `(..., V, C)`.
        temperature: Samples become one-hot as it goes to 0.
    """

    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float) -> None:
        super().__init__(logits)
        self.temperature = temperature

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """`(*sample_shape, ..., D)`, each block a point of the simplex."""
        logits = self.log_probs.expand(*sample_shape, *self.log_probs.shape)
        return F.gumbel_softmax(logits, tau=self.temperature, dim=-1).flatten(-2)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Like `rsample`, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Refused: a point between the corners has no probability under the discrete distribution.

        Raises:
            ValueError: Always.
        """
        raise ValueError("posterior.relaxed=true needs the closed-form KL: prior=categorical and objective.kl=auto")


@register_kl(OneHots, OneHots)
def _kl_one_hots(q: OneHots, p: OneHots) -> Tensor:
    if q.log_probs.shape[-2:] != p.log_probs.shape[-2:]:
        blocks = f"{q.log_probs.shape[-1]} and {p.log_probs.shape[-1]}"
        raise ValueError(f"posterior.categories and prior.categories differ, {blocks}: give both the same")
    return (q.log_probs.exp() * (q.log_probs - p.log_probs)).sum(dim=(-2, -1))


def _choose(log_probs: Tensor, sample_shape: Any) -> Tensor:
    """`(..., C) -> (*sample_shape, ...)`: categories, by Gumbel's argmax.

    Torch's Categorical checks its probabilities on the way and waits for the device to do so.
    """
    log_probs = log_probs.expand(*sample_shape, *log_probs.shape)
    return (log_probs - torch.empty_like(log_probs).exponential_().log()).argmax(dim=-1)
