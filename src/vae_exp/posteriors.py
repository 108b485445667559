"""Posteriors `h -> q(z | x, c)`: features `(B, F)` to a Distribution with batch `(B,)` and event `(D,)`.

A posterior owns the linear heads that turn features into its parameters, so any `zuko` flow conditioned on F features
is a posterior without further code. Diagonal normal: arXiv:1312.6114. Inverse autoregressive flow: arXiv:1606.04934.
Relaxed bits and categories: arXiv:1611.00712, arXiv:1611.01144.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, register_kl
from torch.distributions import Laplace as TorchLaplace
from torch.distributions.utils import clamp_probs
from zuko.distributions import NormalizingFlow
from zuko.flows import MaskedAutoregressiveTransform
from zuko.lazy import LazyComposedTransform

from vae_exp import distributions
from vae_exp.parts import Posterior

__all__ = ["Bernoulli", "Categorical", "DiagonalNormal", "Flow", "FullNormal", "Laplace", "Point"]


class _MuAndLogvar(Posterior):
    """The two heads that a location and a scale are read from."""

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(in_features, latent_dim)
        self.logvar = nn.Linear(in_features, latent_dim)


class DiagonalNormal(_MuAndLogvar):
    """`q(z | h) = N(z; mu(h), diag(exp(logvar(h))))` (Kingma & Welling, 2014).

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    def forward(self, h: Tensor) -> Independent:
        """`(B, F) ->` Independent normal, batch `(B,)`, event `(D,)`."""
        scale = (0.5 * self.logvar(h)).exp()
        return Independent(Normal(self.mu(h), scale, validate_args=False), 1, validate_args=False)


class FullNormal(_MuAndLogvar):
    """`q(z | h) = N(z; mu(h), L L^T)`, `L = diag(exp(logvar(h) / 2)) (I + B(h) / D)`, B strictly lower triangular.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.below = nn.Linear(in_features, len(rows)) if latent_dim > 1 else None
        if self.below is not None:
            # D (D - 1) / 2 random entries would dominate the diagonal, so this starts as a diagonal normal.
            nn.init.zeros_(self.below.weight)
            nn.init.zeros_(self.below.bias)

    def forward(self, h: Tensor) -> MultivariateNormal:
        """`(B, F) ->` multivariate normal, batch `(B,)`, event `(D,)`."""
        scale = (0.5 * self.logvar(h)).exp()
        factor = scale.diag_embed()
        if self.below is not None:
            # Adam moves all D (D - 1) / 2 entries by its learning rate, however small their gradients. In units of z
            # instead of the scale, and without the D, this would move a narrow posterior by more than its width.
            below = scale[:, self.rows] * self.below(h) / len(self.mu.bias)
            images = torch.arange(h.shape[0], device=h.device)  # not len(h), a constant in an export
            factor = factor.index_put((images[:, None], self.rows, self.columns), below)
        return MultivariateNormal(self.mu(h), scale_tril=factor, validate_args=False)


@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """`sum_d log(s_d / L_dd) + ((L L^T)_dd + (mu_d - m_d)^2) / (2 s_d^2) - 1/2`, p the normals N(m_d, s_d^2).

    Raises:
        NotImplementedError: If p is a product of other distributions.
    """
    normal = p.base_dist
    if not isinstance(normal, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    factor = q.scale_tril
    square = factor.square().sum(dim=-1) + (q.loc - normal.loc).square()
    logs = normal.scale.log() - factor.diagonal(dim1=-2, dim2=-1).log()
    return (logs + 0.5 * square / normal.scale.square() - 0.5).sum(dim=-1)


class Laplace(_MuAndLogvar):
    """`q(z | h)`, independent Laplace with mean `mu(h)` and standard deviation `exp(logvar(h) / 2)`.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    def forward(self, h: Tensor) -> Independent:
        """`(B, F) ->` Independent Laplace, batch `(B,)`, event `(D,)`."""
        scale = 0.5**0.5 * (0.5 * self.logvar(h)).exp()  # the variance of a Laplace is 2 scale^2
        return Independent(TorchLaplace(self.mu(h), scale, validate_args=False), 1, validate_args=False)


class Flow(Posterior):
    """Inverse autoregressive flow (Kingma et al., 2016): a diagonal normal through affine maps conditioned on h.

    `z_d <- a_d(z_<d, h) z_d + b_d(z_<d, h)`; the order of the dimensions is reversed from one map to the next. A sample
    with its own density (`rsample_and_log_prob`) costs one pass; the density of other latents (`log_prob`) costs D
    passes per map. The mean is not known.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
        transforms: Number of maps.
        hidden: Widths of the hidden layers of each map.
    """

    def __init__(
        self, in_features: int, latent_dim: int, transforms: int = 2, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        if transforms < 1:
            raise ValueError(
                f"posterior.transforms={transforms}: at least one is needed; posterior=diagonal_normal has none"
            )
        if not hidden:
            raise ValueError("posterior.hidden=[]: at least one hidden layer is needed")
        self.base = DiagonalNormal(in_features, latent_dim)
        orders = torch.arange(latent_dim), torch.arange(latent_dim).flip(0)
        maps = [
            MaskedAutoregressiveTransform(latent_dim, in_features, order=orders[i % 2], hidden_features=tuple(hidden))
            for i in range(transforms)
        ]
        for each in maps:  # scale 1 and shift 0, so it starts as a diagonal normal
            nn.init.zeros_(each.hyper[-1].weight)
            nn.init.zeros_(each.hyper[-1].bias)
        # zuko's flows go from z to the noise in one pass; inverted, they sample in one pass.
        self.transform = LazyComposedTransform(*(each.inv for each in maps))

    def forward(self, h: Tensor) -> NormalizingFlow:
        """`(B, F) ->` flow, batch `(B,)`, event `(D,)`."""
        return NormalizingFlow(self.transform(h), self.base(h))


class Bernoulli(Posterior):
    """`q(z | h)`: D independent bits, for `prior=bernoulli`.

    Samples carry no gradient unless `relaxed` is set: then they are binary concrete numbers in (0, 1) in training mode
    (Maddison et al., 2017), and the KL stays that of the bits.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
        relaxed: Whether samples are relaxed in training mode.
        temperature: Of the relaxed samples; towards 0 they become bits, and the variance of their gradient grows.
    """

    def __init__(self, in_features: int, latent_dim: int, relaxed: bool = False, temperature: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Linear(in_features, latent_dim)
        self.relaxed = relaxed
        self.temperature = _check_temperature(temperature)

    def forward(self, h: Tensor) -> Independent:
        """`(B, F) ->` Independent Bernoulli, batch `(B,)`, event `(D,)`."""
        logits = self.logits(h)
        is_soft = self.relaxed and self.training
        bits = _RelaxedBits(logits, self.temperature) if is_soft else TorchBernoulli(logits=logits, validate_args=False)
        return Independent(bits, 1, validate_args=False)


class _RelaxedBits(TorchBernoulli):
    """Torch's Bernoulli, with its KL, but samples `s((logits + logistic noise) / temperature)`."""

    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.temperature = temperature

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        uniform = clamp_probs(torch.rand_like(self.logits.expand(*sample_shape, *self.logits.shape)))
        return ((self.logits + uniform.logit()) / self.temperature).sigmoid()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ValueError("posterior.relaxed=true needs the closed-form KL: prior=bernoulli and objective.kl=auto")


class Categorical(Posterior):
    """`q(z | h)`: D / C independent variables of C categories, one-hot blocks side by side, for `prior=categorical`.

    Samples carry no gradient unless `relaxed` is set: then they are Gumbel-softmax samples in training mode (Jang et
    al., 2017; Maddison et al., 2017), and the KL stays that of the categories.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
        categories: C.
        relaxed: Whether samples are relaxed in training mode.
        temperature: Of the relaxed samples; towards 0 they become one-hot, and the variance of their gradient grows.
    """

    def __init__(
        self, in_features: int, latent_dim: int, categories: int, relaxed: bool = False, temperature: float = 0.5
    ) -> None:
        super().__init__()
        if categories < 2 or latent_dim % categories:
            raise ValueError(
                f"posterior.categories={categories}, latent_dim={latent_dim}: at least 2 categories are needed, "
                "and latent_dim must be a multiple of them"
            )
        self.logits = nn.Linear(in_features, latent_dim)
        self.categories = categories
        self.relaxed = relaxed
        self.temperature = _check_temperature(temperature)

    def forward(self, h: Tensor) -> distributions.OneHots:
        """`(B, F) ->` one-hot blocks, batch `(B,)`, event `(D,)`."""
        logits = self.logits(h).unflatten(-1, (-1, self.categories))
        if self.relaxed and self.training:
            return distributions.RelaxedOneHots(logits, self.temperature)
        return distributions.OneHots(logits)


def _check_temperature(temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(f"posterior.temperature={temperature}: a positive temperature is needed")
    return temperature


class Point(Posterior):
    """All mass in one point, a linear function of the features: the code of an autoencoder.

    Arguments:
        in_features: F, the width of the encoder's output.
        latent_dim: D.
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(in_features, latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        """`(B, F) ->` a point without a density, batch `(B,)`, event `(D,)`."""
        return _At(self.mu(h))


class _At(Distribution):
    arg_constraints = {}  # noqa: RUF012 (torch's name for it)
    has_rsample = True

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._mean.expand(*sample_shape, *self._mean.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ValueError("posterior=point has no density: choose model=ae, or another posterior")
