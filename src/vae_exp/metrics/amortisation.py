"""How much is lost because one network infers z for all images (arXiv:1801.03558)."""

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
    """The two gaps between ELBO and log p(x) (Cremer et al., 2018), of N images of the split.

    `amortisation_gap_N_images` is the gain of the ELBO when the posterior of each image is refined separately, see
    `refine`. `approximation_gap_N_images` is the rest, from there to log p(x), which is estimated by importance
    sampling from the refined posterior: it shows the limits of the family of posteriors. All are scored with latents
    that were not used in the refinement, with the same noise before and after.

    Arguments:
        trained: The run.
        num_images: N, drawn at random with `seed`, see `Trained.subset`.
        steps: Steps of the refinement.
        lr: Learning rate at the start of the refinement.
        num_latents: Latents for each image in each step.
        num_samples: Latents for each image to score with.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no elbo, or no gradient to refine a posterior with.
    """
    at_least(1, steps=steps, num_latents=num_latents, num_samples=num_samples)
    at_least(2, num_images=num_images)
    at_least(0, lr=lr)
    if lr == 0:
        raise ValueError("lr=0: nothing would be refined, a learning rate must be positive")
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
                raise NoMeaningError("samples of a discrete posterior have no pathwise gradient to refine it with")
            q = refine(draw, model.posterior, h, steps, lr, num_latents, bar.update)
            for scores, each in ((before, draw.q), (after, q)):
                trained.reseed("amortisation", i)
                scores.append(_log_w(draw, each, num_samples))
    log_w, refined = torch.cat(before, dim=1), torch.cat(after, dim=1)
    log_px = refined.logsumexp(dim=0) - log(num_samples)
    numbers = {f"elbo_refined_{num_images}_images": float(refined.mean())}
    for gap, values in (
        ("amortisation_gap", refined - log_w),
        # Its mean over draws is log_px - refined. To first order, the log of a mean varies as the mean / its value.
        ("approximation_gap", (refined - log_px).exp() - 1 + log_px - refined),
    ):
        name, of_images = f"{gap}_{num_images}_images", values.mean(dim=0)
        numbers[name] = float(of_images.mean())
        numbers[f"{name}_se_images"] = float(of_images.std()) / sqrt(num_images)
        numbers[f"{name}_se_draws"] = float((values.var(dim=0) / num_samples).sum().sqrt()) / num_images
    if not all(map(isfinite, numbers.values())):
        raise NoMeaningError(f"amortisation.lr={lr}: the refined posteriors give no finite elbo, choose a smaller lr")
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
    """Follows the gradient of each image's ELBO with respect to its features h, starting from those of the encoder.

    It can reach only posteriors that some h gives: if there are fewer features than parameters of the posterior,
    the gap is that of this smaller family. Adam treats each number separately, so images do not affect each other.

    Arguments:
        draw: A draw for the images; the parameters of its prior and decoder do not change.
        posterior: `(B, F) -> q(z | x, c)`.
        h: Features, `(B, F)`.
        steps: Steps of Adam.
        lr: Its first learning rate, which goes to 0 as a cosine.
        num_latents: Latents for each image in each step.
        progress: Called at each step, with the number of images.

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
    """`log p(x, z | c) - log q(z | x, c)` of new latents of q, `(num_samples, B)`."""
    draw = Draw(draw.x, draw.z, q, draw.p, draw.decode)
    chunk = max(1, CHUNK // (widest(draw) * len(draw.x)))
    sizes = [min(chunk, num_samples - done) for done in range(0, num_samples, chunk)]
    return torch.cat([draw.resample(size).log_w.to(exact(draw.x)) for size in sizes])
