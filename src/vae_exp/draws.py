"""A draw: latents for a batch of images, and everything needed to score them.

ELBO: arXiv:1312.6114. Importance weights: arXiv:1509.00519.
"""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import cached_property, wraps
from math import log
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vae_exp.distributions import closed_form_kl, mean_of, sample_of, variance_of
from vae_exp.precision import full_precision

__all__ = ["Draw", "Stop", "sample"]

T = TypeVar("T")
STOPS = ("z", "q", "p")
Stop = Collection[str]  # of these, what gets no gradient


def _term(compute: Callable[["Draw"], T]) -> "cached_property[T]":
    """A cached property in full precision: in the caller's autocast, the networks of a flow would use half precision.

    Do not use it for a property that decodes: the decoder runs in the precision of the caller.
    """

    @wraps(compute)
    def in_full(draw: "Draw") -> T:
        with full_precision(draw.z):
            return compute(draw)

    return cached_property(in_full)


def sample(q: Distribution, num_samples: int, stop: Stop = ()) -> tuple[Tensor, Tensor | None]:
    """Latents `(K, B, D)` of q, and `log q(z | x, c)` `(K, B)` if computing the two together costs less; else None.

    Raises:
        ValueError: If gradients are needed through samples that have none.
    """
    # An inverse flow needs one pass to sample, but D passes to score.
    if hasattr(q, "rsample_and_log_prob") and "z" not in stop and "q" not in stop:
        return q.rsample_and_log_prob((num_samples,))
    if q.has_rsample:
        with torch.no_grad() if "z" in stop else nullcontext():
            return q.rsample(torch.Size((num_samples,))), None
    if torch.is_grad_enabled() and "z" not in stop:
        raise ValueError(
            f"posterior: samples of {type(getattr(q, 'base_dist', q)).__name__} have no pathwise gradient.\n"
            "Ways out: objective.kl=monte_carlo objective.estimator=score_function; or posterior.relaxed=true, "
            "if the posterior has it"
        )
    return q.sample(torch.Size((num_samples,))), None


class Draw:
    """K latents for each of B images, and the three distributions of the model at them.

    Every term is in nats per image and is computed when it is first used. No term is weighted.

    Arguments:
        x: The images to score, `(B, C, H, W)`.
        z: Latents, `(K, B, D)`.
        q: `q(z | x, c)`, batch `(B,)`, event `(D,)`.
        p: `p(z | c)`, batch `()` or `(B,)`, event `(D,)`; None for an autoencoder.
        decode: `z ->` `p(x | z, c)`, batch `(K, B)`, event `(C, H, W)`.
        stop: What gets no gradient: the parameters of "q" (in `log_qz`), or those of "p" (in `log_px` and `log_pz`).
            These are then functions of z only. If "z" is in it, the caller has already detached z.
        log_qz: `log q(z | x, c)`, if it is known already.

    Attributes:
        log_qy: `log q(y | x)`, `(B, Y)`, of a model that infers labels.
        labels: `(B,)`, -1 for none, which such a model is trained with; None in evaluation.

    Raises:
        ValueError: When x is scored, if the event shape of `p(x | z, c)` is not the shape of an image.

    Example:
        >>> from vae_exp.likelihoods import Bernoulli
        >>> from vae_exp.priors import StandardNormal
        >>> p = StandardNormal(2)()
        >>> q = p.expand((1,))  # a posterior without information about its image
        >>> z, x = q.sample((3,)), torch.ones(1, 1, 2, 2)
        >>> draw = Draw(x, z, q, p, lambda z: Bernoulli()(torch.zeros(len(z), *x.shape)))
        >>> draw.kl, draw.recon  # four fair bits have 4 log 2 nats
        (tensor([0.]), tensor([2.7726]))
        >>> draw.elbo
        tensor([-2.7726])
    """

    log_qy: Tensor | None = None
    labels: Tensor | None = None

    def __init__(
        self,
        x: Tensor,
        z: Tensor,
        q: Distribution,
        p: Distribution | None,
        decode: Callable[[Tensor], Distribution],
        stop: Stop = (),
        log_qz: Tensor | None = None,
    ) -> None:
        if not set(stop) <= set(STOPS):
            raise ValueError(f"stop={stop}: choose of {', '.join(STOPS)}")
        self.x, self.z, self.q, self.p, self.decode, self.stop = x, z, q, p, decode, stop
        self.extras: dict[str, Tensor] = {}
        if log_qz is not None:
            self.log_qz = log_qz

    @property
    def terms(self) -> dict[str, Tensor]:
        """What is logged for a batch, `(B,)` each: recon, kl if there is a prior, and the `extras` of the objective."""
        return {"recon": self.recon, **({} if self.p is None else {"kl": self.kl}), **self.extras}

    @property
    def z_mean(self) -> Tensor | None:
        """`E_q z`, `(B, D)`; None if the posterior has no formula for it (a flow)."""
        return mean_of(self.q)

    @property
    def z_variance(self) -> Tensor | None:
        """`Var_q z`, `(B, D)`; None if the posterior has no formula for it (a flow) or is a point."""
        return variance_of(self.q)

    def mean(self, num_samples: int) -> Tensor:
        """`E_q z`, `(B, D)`, or the mean of K new latents if the posterior has no formula for it."""
        mean = self.z_mean
        return self.resample(num_samples).z.mean(dim=0) if mean is None else mean

    @cached_property
    def px(self) -> Distribution:
        """`p(x | z, c)`, batch `(K, B)`, event `(C, H, W)`."""
        return self.decode(self.z)

    @cached_property
    def log_px(self) -> Tensor:
        """`log p(x | z, c)`, `(K, B)`."""
        if "p" in self.stop:
            return _of_z_alone(lambda z: self._score_x(self.decode(z)), self.z)
        return self._score_x(self.px)

    @_term
    def log_pz(self) -> Tensor:
        """`log p(z | c)`, `(K, B)`."""
        p = self._prior()
        return _of_z_alone(p.log_prob, self.z) if "p" in self.stop else p.log_prob(self.z)

    @_term
    def log_qz(self) -> Tensor:
        """`log q(z | x, c)`, `(K, B)`."""
        return _of_z_alone(self.q.log_prob, self.z) if "q" in self.stop else self.q.log_prob(self.z)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """`log p(x | z, c)`, `(K, B)`, at other latents `(K, B, D)`."""
        return self._score_x(self.decode(z))

    def log_prior(self, z: Tensor) -> Tensor:
        """`log p(z | c)`, `(K, B)`, at other latents `(K, B, D)`."""
        with full_precision(z):
            return self._prior().log_prob(z)

    def log_joint(self, z: Tensor) -> Tensor:
        """`log p(x, z | c)`, `(K, B)`, at other latents `(K, B, D)`."""
        return self.log_likelihood(z) + self.log_prior(z)

    def resample(self, num_samples: int) -> "Draw":
        """A draw of K new latents from the same posterior; x is not encoded again."""
        with full_precision(self.x):
            z, log_qz = sample(self.q, num_samples, self.stop)
        return Draw(self.x, z, self.q, self.p, self.decode, self.stop, log_qz)

    def sample_prior(self, num_samples: int) -> Tensor:
        """Latents of `p(z | c)`, `(K, B, D)`, with a pathwise gradient if the prior has one.

        Raises:
            ValueError: If the prior cannot be sampled.
        """
        p = self._prior()
        with full_precision(self.x):
            return sample_of(p, (num_samples,) if p.batch_shape else (num_samples, len(self.x)))

    def _prior(self) -> Distribution:
        if self.p is None:
            raise ValueError("prior=none has no kl and no elbo: objective=recon needs neither, or choose another prior")
        return self.p

    def _score_x(self, px: Distribution) -> Tensor:
        if px.event_shape != self.x.shape[1:]:  # log_prob would broadcast and give one number for all images
            raise ValueError(
                f"likelihood: p(x | z) is over {tuple(px.event_shape)}, but an image is {tuple(self.x.shape[1:])}.\n"
                "Ways out: a decoder that gives params (N, P*C, H, W) for that image, or another likelihood"
            )
        with full_precision(self.x):
            return px.log_prob(self.x.expand(*px.batch_shape[:-1], *self.x.shape))

    @_term
    def kl_per_dim(self) -> Tensor | None:
        """`KL(q(z_d | x, c) || p(z_d | c))`, `(B, D)`, if both factorise and torch has a formula; else None."""
        if not (isinstance(self.q, Independent) and isinstance(self.p, Independent)):
            return None
        return closed_form_kl(self.q.base_dist, self.p.base_dist)

    @_term
    def kl(self) -> Tensor:
        """`KL(q(z | x, c) || p(z | c))`, `(B,)`: the closed form if torch has one, else Monte Carlo."""
        if self.kl_per_dim is not None:
            return self.kl_per_dim.sum(dim=-1)
        closed = closed_form_kl(self.q, self._prior())
        return (self.log_qz - self.log_pz).mean(dim=0) if closed is None else closed

    @cached_property
    def recon(self) -> Tensor:
        """`-E_q log p(x | z, c)`, `(B,)`, the mean over the K latents."""
        return -self.log_px.mean(dim=0)

    @cached_property
    def elbo(self) -> Tensor:
        """`E_q log p(x | z, c) - KL(q || p)`, `(B,)`: a lower bound of `log p(x | c)` (Kingma & Welling, 2014)."""
        return -(self.recon + self.kl)

    @cached_property
    def log_w(self) -> Tensor:
        """`log p(x, z | c) - log q(z | x, c)`, `(K, B)`: the log importance weights."""
        return self.log_px + self.log_pz - self.log_qz

    @cached_property
    def iwae(self) -> Tensor:
        """`log 1/K sum_k w_k`, `(B,)`: the bound of K latents (Burda et al., 2016)."""
        return self.log_w.logsumexp(dim=0) - log(len(self.z))


def _of_z_alone(log_prob: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`log_prob(z)` with a first-order gradient for z and none for the parameters of `log_prob`.

    Detached copies of the parameters would not work: a flow of zuko reads its parameters when it is called.
    """
    leaf = z.detach()
    if not (z.requires_grad and torch.is_grad_enabled()):
        with torch.no_grad():
            return log_prob(leaf)
    value = log_prob(leaf.requires_grad_())
    (slope,) = torch.autograd.grad(value.sum(), leaf)  # each value depends only on its own latent
    return value.detach() + (slope * (z - z.detach())).sum(dim=-1)
