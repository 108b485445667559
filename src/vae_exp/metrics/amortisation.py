"""What is lost if one network infers z for all images (arXiv:1801.03558)."""

from collections.abc import Callable
from math import isfinite, log, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae_exp.config import NoMeaningError
from vae_exp.draws import Draw, sample
from vae_exp.estimators.importance import CHUNK, widest
from vae_exp.metrics.options import at_least
from vae_exp.precision import at_least_float32, exact
from vae_exp.runs.trained import Trained

__all__ = ["amortisation", "refine"]


def amortisation(
    trained: Trained, num_images: int, steps: int, lr: float, num_latents: int, num_samples: int
) -> dict[str, Any]:
    """The two parts of the gap between ELBO and log p(x) (Cremer et al., 2018), for N images of the split.

    `amortisation_gap_N_images` is what the ELBO gains if the posterior of each image is refined by itself, see
    `refine`. `approximation_gap_N_images` is the difference that is left to log p(x), which is estimated by importance
    sampling from the refined posterior: no posterior of this family closes it. Both are computed with latents that the
    refinement has not used, and with the same noise before and after it.

    Arguments:
        trained: The run.
        num_images: N, drawn at random by the run's `seed`, see `Trained.subset`.
        steps: Steps of the refinement.
        lr: Learning rate of the first step.
        num_latents: Latents per image and step.
        num_samples: Latents per image to score with.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no elbo, or no gradient to refine a posterior with.
    """
    at_least(1, steps=steps, num_latents=num_latents, num_samples=num_samples)
    at_least(2, num_images=num_images)
    at_least(0, lr=lr)
    if lr == 0:
        raise ValueError("lr=0: nothing would be refined, a learning rate is positive")
    model = trained.model
    model.require("slope")
    if min(num_samples, trained.num_images()) < 2:
        raise NoMeaningError("a gap and its errors need two latents of two images: num_samples=5000")
    num_images = min(num_images, trained.num_images())
    before: list[Tensor] = []
    after: list[Tensor] = []
    with trained.bar(num_images * steps, f"amortisation, {num_images} images", "steps") as bar:
        for i, (x, y) in enumerate(trained.batches(num_images=num_images)):
            with torch.no_grad():
                draw = model.draw(x, y)
                h = at_least_float32(model.encoder(x, model.context(y)))
            if not draw.q.has_rsample:
                raise NoMeaningError("samples of a discrete posterior have no pathwise gradient to refine it by")
            q = refine(draw, model.posterior, h, steps, lr, num_latents, bar.update)
            for scores, each in ((before, draw.q), (after, q)):
                trained.reseed("amortisation", i)
                scores.append(_log_w(draw, each, num_samples))
    log_w, refined = torch.cat(before, dim=1), torch.cat(after, dim=1)
    log_px = refined.logsumexp(dim=0) - log(num_samples)
    numbers = {f"elbo_refined_{num_images}_images": float(refined.mean())}
    for gap, values in (
        ("amortisation_gap", refined - log_w),
        # Its mean over draws is log_px - refined; its variance is, to first order, that of the log of the mean weight.
        ("approximation_gap", (refined - log_px).exp() - 1 + log_px - refined),
    ):
        name, of_images = f"{gap}_{num_images}_images", values.mean(dim=0)
        numbers[name] = float(of_images.mean())
        numbers[f"{name}_se_images"] = float(of_images.std()) / sqrt(num_images)
        numbers[f"{name}_se_draws"] = float((values.var(dim=0) / num_samples).sum().sqrt()) / num_images
    if not all(map(isfinite, numbers.values())):
        raise NoMeaningError(f"amortisation.lr={lr}: the refined posteriors give no finite elbo, choose a smaller one")
    return numbers


def refine(
    draw: Draw,
    posterior: Callable[[Tensor], Distribution],
    h: Tensor,
    steps: int,
    lr: float,
    num_latents: int,
    progress: Callable[[int], object] = lambda num: None,
) -> Distribution:
    """Improves the ELBO of each image by gradient steps on the features that its posterior is computed from.

    The start is the encoder's features. Only posteriors that some features give are reached: with fewer features than
    the posterior has parameters, these are not all of the family. Adam treats each number separately, so the images do
    not influence each other.

    Arguments:
        draw: A draw of the images, with prior and decoder, whose parameters do not change.
        posterior: `(B, F) -> q(z | x, c)`.
        h: Features, `(B, F)`.
        steps: Steps of Adam.
        lr: Learning rate of the first step; it falls to 0 as a cosine.
        num_latents: Latents per image and step.
        progress: Called at each step with the number of images.

    Returns:
        The posteriors of the refined features, batch `(B,)`.
    """
    h = h.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([h], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        q = posterior(h)
        z, log_qz = sample(q, num_latents)
        elbo = Draw(draw.x, z, q, draw.p, draw.decode, log_qz=log_qz).elbo
        (h.grad,) = torch.autograd.grad(-elbo.sum(), h)
        optimizer.step()
        schedule.step()
        progress(len(h))
    with torch.no_grad():
        return posterior(h)


@torch.no_grad()
def _log_w(draw: Draw, q: Distribution, num_samples: int) -> Tensor:
    """`log p(x, z | c) - log q(z | x, c)` of fresh latents of q, `(num_samples, B)`."""
    draw = Draw(draw.x, draw.z, q, draw.p, draw.decode)
    chunk = max(1, CHUNK // (widest(draw) * len(draw.x)))
    sizes = [min(chunk, num_samples - done) for done in range(0, num_samples, chunk)]
    return torch.cat([draw.resample(size).log_w.to(exact(draw.x)) for size in sizes])
