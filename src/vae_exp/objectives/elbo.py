"""The ELBO and objectives that weight its KL.

ELBO: arXiv:1312.6114. Beta: Higgins et al. (2017). Capacity: arXiv:1804.03599. Free bits: arXiv:1606.04934. The
gradient estimator stl: arXiv:1703.09194.
"""

from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.objectives.model import Model, Objective, check_choice, check_count
from vae_exp.schedules import Number, at, check

__all__ = ["ELBO", "BetaELBO", "Capacity", "FreeBits", "Recon"]

PAIRS = (
    "kl=auto with estimator=pathwise, or kl=monte_carlo with estimator=pathwise, stl or score_function"
    " (that one with baseline=true or false)"
)


class ELBO(Objective):
    """`-elbo` (Kingma & Welling, 2014).

    Arguments:
        num_samples: K, latents per image.
        kl: `auto`: the closed form if there is one; `monte_carlo`: `log q(z | x) - log p(z)` at the latents.
        estimator: Of the gradient for the posterior: `pathwise`, or with kl=monte_carlo also `stl`, pathwise without
            the score of q, whose mean is zero (Roeder et al., 2017), so that no variance is left if q is exact; or
            `score_function`, which needs no reparametrisation.
        baseline: For the score function alone: subtracts from the weight of each latent the mean of the other weights;
            K must be at least 2.

    Example:
        >>> import torch
        >>> from vae_exp import decoders, encoders, likelihoods, models, posteriors, priors
        >>> networks = encoders.MLP([1, 8, 8], out_features=16), decoders.MLP(2, [1, 8, 8])
        >>> parts = posteriors.DiagonalNormal(16, 2), priors.StandardNormal(2), likelihoods.Bernoulli()
        >>> model = models.VAE(*networks, *parts, objective=ELBO(num_samples=4))
        >>> x, y = torch.rand(5, 1, 8, 8).round(), torch.zeros(5, dtype=torch.long)
        >>> loss, draw = model.objective(model, x, y, model.step)
        >>> torch.allclose(loss, -draw.elbo.mean())
        True
    """

    def __init__(
        self, num_samples: int = 1, kl: str = "auto", estimator: str = "pathwise", baseline: bool = False
    ) -> None:
        self.estimate = _Estimate(num_samples, kl, estimator, baseline)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        return self.estimate(model, x, y, None)


class BetaELBO(Objective):
    """`recon + beta * kl` (Higgins et al., 2017).

    Arguments:
        beta: Weight of the KL; 1 gives `ELBO`. May be a schedule.
        num_samples: K, latents per image.
        kl: As of `ELBO`.
        estimator: As of `ELBO`.
        baseline: As of `ELBO`.
    """

    def __init__(
        self,
        beta: Number,
        num_samples: int = 1,
        kl: str = "auto",
        estimator: str = "pathwise",
        baseline: bool = False,
    ) -> None:
        self.beta = check("objective.beta", beta)
        self.estimate = _Estimate(num_samples, kl, estimator, baseline)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        return self.estimate(model, x, y, at(self.beta, step))


class _Estimate:
    """`recon + beta * kl` with a gradient by one of the estimators; beta None means 1."""

    def __init__(self, num_samples: int, kl: str, estimator: str, baseline: bool) -> None:
        self.num_samples = check_count("num_samples", num_samples)
        if baseline and num_samples < 2:
            raise ValueError(
                f"objective.num_samples={num_samples}: objective.baseline=true takes the mean over the other latents, "
                "at least 2 are needed"
            )
        self.kl = check_choice("kl", kl, ("auto", "monte_carlo"))
        self.estimator = check_choice("estimator", estimator, ("pathwise", "stl", "score_function"))
        self.baseline = baseline
        if (kl == "auto" and estimator != "pathwise") or (baseline and estimator != "score_function"):
            given = f"objective.kl={kl} objective.estimator={estimator} objective.baseline={str(baseline).lower()}"
            raise ValueError(f"{given} do not go together.\nThe choices are: {PAIRS}")

    def __call__(self, model: Model, x: Tensor, y: Tensor, beta: Tensor | float | None) -> tuple[Tensor, Draw]:
        stop = {"pathwise": (), "stl": ("q",), "score_function": ("z",)}[self.estimator]
        draw = model.draw(x, y, self.num_samples, stop=stop)
        if self.kl == "auto":
            return (draw.recon + (draw.kl if beta is None else beta * draw.kl)).mean(), draw
        beta = 1.0 if beta is None else beta
        if self.estimator != "score_function":
            return -(draw.log_px + beta * (draw.log_pz - draw.log_qz)).mean(), draw
        # The gradient of E_q f is E_q [f * score of q], plus the gradient of f itself for the parameters outside q.
        f = draw.log_px + beta * (draw.log_pz - draw.log_qz.detach())
        weight = f.detach()
        if self.baseline:
            weight = weight - (weight.sum(dim=0) - weight) / (self.num_samples - 1)
        score = weight * (draw.log_qz - draw.log_qz.detach())  # of value zero
        return -(f + score).mean(), draw


class Capacity(Objective):
    """`recon + gamma * |kl - capacity|`: keeps the mean KL of a batch at a capacity that grows (Burgess et al., 2018).

    Arguments:
        gamma: Weight of the distance.
        capacity: Nats per image; usually a schedule.
        num_samples: K, latents per image.
    """

    def __init__(self, gamma: Number, capacity: Number, num_samples: int = 1) -> None:
        self.gamma = check("objective.gamma", gamma)
        self.capacity = check("objective.capacity", capacity)
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        draw = model.draw(x, y, self.num_samples)
        distance = (draw.kl.mean() - at(self.capacity, step)).abs()
        return draw.recon.mean() + at(self.gamma, step) * distance, draw


class FreeBits(Objective):
    """`recon + sum_d max(free, kl_d)`, kl_d the KL of a dimension, averaged over the batch (Kingma et al., 2016).

    Up to `free` nats the use of a dimension costs nothing, so the posterior does not collapse early.

    Arguments:
        free: Nats per dimension.
        num_samples: K, latents per image.
    """

    def __init__(self, free: Number, num_samples: int = 1) -> None:
        self.free = check("objective.free", free)
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw.

        Raises:
            ValueError: If there is no KL in closed form for each dimension.
        """
        draw = model.draw(x, y, self.num_samples)
        if draw.kl_per_dim is None:
            raise ValueError(
                "objective=free_bits needs the KL of each dimension in closed form, and there is none:\n"
                "choose posterior=diagonal_normal prior=standard_normal, or another objective"
            )
        kl = draw.kl_per_dim.mean(dim=0)
        return draw.recon.mean() + kl.clamp(min=at(self.free, step)).sum(), draw


class Recon(Objective):
    """`recon` alone, the objective of an autoencoder.

    Arguments:
        num_samples: K, latents per image.
    """

    monitor = "val/recon"

    def __init__(self, num_samples: int = 1) -> None:
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        draw = model.draw(x, y, self.num_samples)
        return draw.recon.mean(), draw
