"""Objectives on the aggregate posterior `q(z) = 1/N sum_n q(z | x_n)`, estimated from a batch.

Beta-TCVAE: arXiv:1802.04942. DIP-VAE: arXiv:1711.00848. InfoVAE: arXiv:1706.02262. Wasserstein autoencoder:
arXiv:1711.01558.
"""

from math import log

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from vae_exp.distributions import mean_of
from vae_exp.draws import Draw
from vae_exp.objectives.model import Model, Objective, check_choice, check_count
from vae_exp.parts import Prior
from vae_exp.precision import full_precision
from vae_exp.schedules import Number, at, check, ends

__all__ = ["DIP", "MMD", "BetaTCVAE", "log_aggregate"]


def log_aggregate(log_qz: Tensor, train_size: int, estimator: str) -> Tensor:
    """Estimates `log q(z_i)` of the whole training set from a batch (Chen et al., 2018, appendix C).

    `mws`: `log 1/(N B) sum_j q(z_i | x_j)`, minibatch-weighted sampling, biased. `mss`: minibatch-stratified sampling,
    whose density is unbiased: `q(z_i | x_i)` has the weight 1/N, the others share (N - 1)/N equally. (Chen et al. give
    one of the others a different weight; this is the mean over the choice of that one.)

    Arguments:
        log_qz: `log q(z_i | x_j)`, `(..., B, B)`: rows are latents, columns images.
        train_size: N.
        estimator: `mws` or `mss`.

    Returns:
        `(..., B)`.
    """
    size = log_qz.shape[-1]
    if estimator == "mws":
        return log_qz.logsumexp(dim=-1) - log(train_size * size)
    weight = log_qz.new_full((size, size), (train_size - 1) / train_size / max(size - 1, 1))
    weight.fill_diagonal_(1 / train_size)
    return (log_qz + weight.log()).logsumexp(dim=-1)


class BetaTCVAE(Objective):
    """`recon + alpha * mi + beta * tc + gamma * dwkl` (Chen et al., 2018); all weights 1 give the ELBO.

    The KL is split into `mi = log q(z | x) - log q(z)`, `tc = log q(z) - sum_d log q(z_d)` and
    `dwkl = sum_d log q(z_d) - log p(z)`. The densities are estimates from a batch, so `tc` is not the total
    correlation: it is logged under the name of the estimator.

    Arguments:
        beta: Weight of tc. May be a schedule, like alpha and gamma.
        train_size: N, the number of training images.
        alpha: Weight of mi.
        gamma: Weight of dwkl.
        estimator: `mws` or `mss`, see `log_aggregate`.
        num_samples: K, latents per image.
    """

    min_images = 2

    def __init__(
        self,
        beta: Number,
        train_size: int | None,
        alpha: Number = 1.0,
        gamma: Number = 1.0,
        estimator: str = "mws",
        num_samples: int = 1,
    ) -> None:
        if train_size is None:
            raise ValueError("objective.train_size: the number of training images is needed, set data.train_size")
        self.train_size = check_count("train_size", train_size)
        self.alpha = check("objective.alpha", alpha)
        self.beta = check("objective.beta", beta)
        self.gamma = check("objective.gamma", gamma)
        self.estimator = check_choice("estimator", estimator, ("mws", "mss"))
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw.

        Raises:
            ValueError: If the posterior does not factorise.
        """
        draw = model.draw(x, y, self.num_samples)
        if not isinstance(draw.q, Independent):
            raise ValueError(
                "objective=beta_tcvae needs a posterior that factorises over the dimensions: "
                "choose posterior=diagonal_normal (laplace)"
            )
        if len(x) < self.min_images:  # nothing to compare with; the last batch of an evaluation may be that small
            draw.extras[self.estimator] = torch.zeros_like(draw.recon)
            return (draw.recon + draw.kl).mean(), draw
        pairs = draw.q.base_dist.log_prob(draw.z.unsqueeze(2))  # (K, B, B, D): log q(z_id | x_jd)
        log_qz = log_aggregate(pairs.sum(dim=-1), self.train_size, self.estimator)
        log_q_dims = log_aggregate(pairs.movedim(-1, 0), self.train_size, self.estimator).sum(dim=0)
        mi, tc, dwkl = draw.log_qz - log_qz, log_qz - log_q_dims, log_q_dims - draw.log_pz
        draw.extras[self.estimator] = tc.mean(dim=0)
        kl = at(self.alpha, step) * mi + at(self.beta, step) * tc + at(self.gamma, step) * dwkl
        return (draw.recon + kl.mean(dim=0)).mean(), draw


class DIP(Objective):
    """`recon + kl` and a penalty on covariances of the aggregate posterior (Kumar et al., 2018).

    `off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2`, where C is the covariance over the batch of
    the posterior means (DIP-I), or this plus the mean posterior covariance, which together are that of q(z) (DIP-II).

    Arguments:
        kind: 1 or 2.
        off_diagonal: Weight of the squared covariances. May be a schedule, like diagonal.
        diagonal: Weight of the squared distances of the variances from 1. None: for DIP-I ten times off_diagonal, for
            DIP-II the same as off_diagonal, as in their experiments.
        num_samples: K, latents per image.
    """

    min_images = 2

    def __init__(self, kind: int, off_diagonal: Number, diagonal: Number | None = None, num_samples: int = 1) -> None:
        if kind not in (1, 2):
            raise ValueError(f"objective.kind={kind}: choose 1 or 2, for DIP-VAE-I or II")
        self.kind = kind
        self.off_diagonal = check("objective.off_diagonal", off_diagonal)
        self.diagonal = None if diagonal is None else check("objective.diagonal", diagonal)
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw.

        Raises:
            ValueError: If the posterior does not know its mean or its covariance.
        """
        draw = model.draw(x, y, self.num_samples)
        if len(x) < self.min_images:  # no covariance; the last batch of an evaluation may be that small
            return (draw.recon + draw.kl).mean(), draw
        with full_precision(x):  # otherwise the matrix product would be in half precision
            cov = self._covariance(draw)
        variances = cov.diagonal()
        off_diagonal = at(self.off_diagonal, step)
        diagonal = {1: 10, 2: 1}[self.kind] * off_diagonal if self.diagonal is None else at(self.diagonal, step)
        penalty = off_diagonal * (cov.square().sum() - variances.square().sum())
        penalty = penalty + diagonal * (variances - 1).square().sum()
        return (draw.recon + draw.kl).mean() + penalty, draw

    def _covariance(self, draw: Draw) -> Tensor:
        """`(D, D)`."""
        q, mean = draw.q, mean_of(draw.q)
        if mean is None or (self.kind == 2 and not isinstance(q, Independent | MultivariateNormal)):
            raise ValueError(
                "objective=dip needs the mean and covariance of the posterior, which this one does not know: "
                "choose posterior=diagonal_normal (full_normal, laplace)"
            )
        deviations = mean - mean.mean(dim=0)
        cov = deviations.T @ deviations / len(deviations)  # torch's cov reads its divisor from the device
        if self.kind == 1:
            return cov
        if isinstance(q, MultivariateNormal):
            return cov + q.covariance_matrix.mean(dim=0)
        return cov + q.variance.mean(dim=0).diag()


class MMD(Objective):
    """`recon + (1 - alpha) * kl + (alpha + weight - 1) * mmd` (InfoVAE: Zhao et al., 2019).

    `mmd` is the squared maximum mean discrepancy between the latents of a batch and equally many from the prior
    (unbiased, so it may be negative), with sums of inverse multiquadric kernels `s / (s + |z - z'|^2)`, s = 2 D times
    0.1, 0.2, 0.5, 1, 2, 5, 10. alpha = 1 gives the Wasserstein autoencoder (Tolstikhin et al., 2018), whose KL has no
    weight.

    Arguments:
        alpha: 1 minus the weight of the KL. May be a schedule, like weight.
        weight: `lambda` of both papers; with alpha = 1 the weight of the discrepancy.
        num_samples: K, latents per image.
    """

    min_images = 2

    def __init__(self, alpha: Number, weight: Number, num_samples: int = 1) -> None:
        self.alpha = check("objective.alpha", alpha, high=1.0)
        self.weight = check("objective.weight", weight)
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw.

        Raises:
            ValueError: If the prior cannot be sampled from, or would not be trained although it has parameters.
        """
        draw = model.draw(x, y, self.num_samples)
        if set(ends(self.alpha)) == {1} and draw.p is not None and not draw.p.has_rsample:
            self._check_nothing_to_train(model.prior)
        z = draw.sample_prior(self.num_samples)
        alpha, weight = at(self.alpha, step), at(self.weight, step)
        discrepancy = mmd(draw.z, z).mean()
        return (draw.recon + (1 - alpha) * draw.kl).mean() + (alpha + weight - 1) * discrepancy, draw

    def _check_nothing_to_train(self, prior: Prior) -> None:
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in prior.parameters()):
            raise ValueError(
                f"objective.alpha=1 leaves out the KL, and samples of {type(prior).__name__} have no gradient, so the\n"
                "prior would never be trained. Ways out: objective.alpha below 1, prior=standard_normal or prior=flow"
            )


def mmd(z: Tensor, other: Tensor) -> Tensor:
    """The unbiased squared discrepancy `(...)` between two samples `(..., B, D)`, see `MMD`; 0 if B is 1."""
    scales = [2 * z.shape[-1] * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    size = z.shape[-2]
    if size == 1:  # no pairs; the last batch of an evaluation may be that small
        return z.new_zeros(z.shape[:-2])

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(dim=-1)
        return torch.stack([scale / (scale + distance) for scale in scales]).sum(dim=0)

    def without_self(k: Tensor) -> Tensor:
        return (k.sum(dim=(-2, -1)) - len(scales) * size) / (size * (size - 1))

    within = without_self(kernel(z, z)) + without_self(kernel(other, other))
    return within - 2 * kernel(z, other).mean(dim=(-2, -1))
