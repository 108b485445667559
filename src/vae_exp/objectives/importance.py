"""Bounds by importance weights, which become tighter with more latents; `iwae_samples` says how many `iwae` has.

IWAE: arXiv:1509.00519. MIWAE, CIWAE, PIWAE: arXiv:1802.04537. The gradient estimator dreg: arXiv:1810.04152.
"""

from math import log

from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.objectives.model import Model, Objective, check_choice, check_count
from vae_exp.schedules import Number, at, check

__all__ = ["CIWAE", "IWAE", "MIWAE", "PIWAE"]

ESTIMATORS = ("pathwise", "dreg")


def _check_estimator(estimator: str) -> str:
    if estimator == "stl":
        raise ValueError("objective.estimator=stl is biased for importance-weighted bounds: choose pathwise or dreg")
    return check_choice("estimator", estimator, ESTIMATORS)


class IWAE(Objective):
    """`-log 1/K sum_k p(x, z_k) / q(z_k | x)` (Burda et al., 2016).

    Arguments:
        num_samples: K, latents per image.
        estimator: Of the posterior's gradient: `pathwise`, or `dreg`, doubly reparametrised (Tucker et al., 2018),
            whose ratio of signal to noise does not fall as K grows.
    """

    monitor = "val/iwae"

    def __init__(self, num_samples: int, estimator: str = "pathwise") -> None:
        self.bound = _Grouped(1, num_samples, estimator)
        self.iwae_samples = num_samples

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        return self.bound(model, x, y, 0.0)


class MIWAE(Objective):
    """The mean of M bounds of K latents each (Rainforth et al., 2018).

    Arguments:
        num_groups: M.
        num_samples: K; M * K latents per image.
        estimator: As in `IWAE`.
    """

    monitor = "val/iwae"

    def __init__(self, num_groups: int, num_samples: int, estimator: str = "pathwise") -> None:
        self.bound = _Grouped(num_groups, num_samples, estimator)
        self.iwae_samples = num_samples

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        return self.bound(model, x, y, 0.0)


class CIWAE(Objective):
    """`beta * elbo + (1 - beta) * iwae` of the same K latents (Rainforth et al., 2018).

    Arguments:
        num_samples: K, latents per image.
        beta: Share of the ELBO, 0 to 1. May be a schedule.
        estimator: As in `IWAE`; with `dreg` the share of the ELBO has no score of q (Roeder et al., 2017).
    """

    monitor = "val/iwae"

    def __init__(self, num_samples: int, beta: Number, estimator: str = "pathwise") -> None:
        self.bound = _Grouped(1, num_samples, estimator)
        self.iwae_samples = num_samples
        self.beta = check("objective.beta", beta, high=1.0)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        return self.bound(model, x, y, at(self.beta, step))


class PIWAE(Objective):
    """Trains the decoder on `iwae` of all M * K latents and the encoder on `miwae` (Rainforth et al., 2018).

    More latents improve the gradient of the decoder and make that of the encoder noisy. The model decodes twice; the
    loss that is shown is the decoder's.

    Arguments:
        num_groups: M.
        num_samples: K; M * K latents per image.
    """

    monitor = "val/iwae"

    def __init__(self, num_groups: int, num_samples: int) -> None:
        self.num_groups = check_count("num_groups", num_groups)
        self.num_samples = check_count("num_samples", num_samples)
        self.iwae_samples = num_groups * num_samples

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw."""
        of_encoder = model.draw(x, y, self.num_groups * self.num_samples, stop=("p",))
        # The weights use the q that the latents came from: a noisy encoder (corruption, dropout) would give another q.
        z, log_qz = of_encoder.z.detach(), of_encoder.log_qz.detach()
        of_decoder = Draw(x, z, of_encoder.q, of_encoder.p, of_encoder.decode, ("z", "q"), log_qz)
        miwae = of_encoder.log_w.unflatten(0, (self.num_groups, self.num_samples)).logsumexp(dim=1).mean()
        of_decoder.extras["iwae"] = of_decoder.iwae
        return -of_decoder.iwae.mean() - (miwae - miwae.detach()), of_decoder


class _Grouped:
    """`beta * elbo + (1 - beta) *` the mean of M bounds of K latents, with a gradient by one of the estimators."""

    def __init__(self, num_groups: int, num_samples: int, estimator: str) -> None:
        self.groups = check_count("num_groups", num_groups), check_count("num_samples", num_samples)
        self.estimator = _check_estimator(estimator)

    def __call__(self, model: Model, x: Tensor, y: Tensor, beta: Tensor | float) -> tuple[Tensor, Draw]:
        num_groups, num_samples = self.groups
        draw = model.draw(x, y, num_groups * num_samples, stop=("q",) if self.estimator == "dreg" else ())
        log_w = draw.log_w.unflatten(0, self.groups)  # (M, K, B)
        if self.estimator == "dreg" and draw.z.requires_grad:
            # The gradient that reaches a latent is already weighted; the factor below squares the weight. In the share
            # beta every latent has the weight 1 / K, without a square (Tucker et al., 2018, section 7).
            w = log_w.detach().softmax(dim=1)
            equal = beta / num_samples
            given, wanted = equal + (1 - beta) * w, equal + (1 - beta) * w.square()
            factor = (wanted / given).nan_to_num(0.0).flatten(0, 1).unsqueeze(-1)  # 0 / 0 if a weight vanishes
            draw.z.register_hook(lambda grad: grad * factor)
        iwae = (log_w.logsumexp(dim=1) - log(num_samples)).mean(dim=0)
        draw.extras["iwae"] = iwae
        return -(beta * log_w.mean() + (1 - beta) * iwae.mean()), draw
