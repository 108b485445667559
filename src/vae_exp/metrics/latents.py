"""How the latents are used."""

import logging
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vae_exp import charts
from vae_exp.draws import Draw
from vae_exp.estimators.importance import CHUNK, Marginal, importance_sampling
from vae_exp.metrics.collapse import UNUSED
from vae_exp.metrics.nll import nll_numbers
from vae_exp.metrics.options import at_least
from vae_exp.precision import exact
from vae_exp.runs.trained import Trained

__all__ = ["Posteriors", "Pruned", "elbo_surgery", "explained", "latents", "units"]

DEAD = 0.01  # share of a unit's variance explained by the image; below it the unit is dead
SATURATED = 0.5  # nats; an information this near to its bound says little but how many images there are
HALF = 50  # latents for each of the two estimates of a posterior mean that has no formula
WIDTH = 128  # least memory, in numbers, to score one latent with one image: a flow has hidden layers
logger = logging.getLogger("vae_exp")


def latents(
    trained: Trained, threshold: float, num_images: int, num_latents: int, nll_images: int, num_samples: int
) -> dict[str, Any]:
    """Which dimensions are used, the information of z about the image, how well q(z) fits the prior; `kl_per_dim.png`.

    Arguments:
        trained: The run.
        threshold: A unit is active if the variance of its posterior mean over the images is above this.
        num_images: N, the images of the aggregate posterior q(z), drawn at random with `seed`, see `Trained.subset`.
        num_latents: Number of latents over which its log densities are averaged.
        nll_images: Number of images, drawn in the same way, that are scored with and without the dead units. A unit is
            dead if the image explains at most 1 % of its variance.
        num_samples: Latents for each image that is scored.

    Returns:
        The results of `units` and of `elbo_surgery`, `verdict`, and, for N images, `nll_N_images` and
        `nll_without_dead_units_N_images`. If a number is not defined, it is None and `..._refused` gives the reason.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If the model has no prior.
    """
    at_least(0, threshold=threshold)
    at_least(1, num_images=num_images, nll_images=nll_images, num_samples=num_samples)
    at_least(2, num_latents=num_latents)
    trained.model.require("prior")
    numbers = units(trained, threshold)
    active = [variance > threshold for variance in numbers["mean_variances"]]
    dead = [share <= DEAD for share in numbers["explained_variances"] or []]
    if numbers["kl_per_dim"] is not None:
        title = f"{trained.cfg.name}\n{sum(active)} of {len(active)} units active, {trained.split_title} images"
        path = trained.folder / "images" / f"kl_per_dim{'' if trained.split == 'test' else '_' + trained.split}.png"
        path.parent.mkdir(exist_ok=True)
        names = [f"z{d}" for d in range(len(active))]
        charts.save(charts.bars(numbers["kl_per_dim"], names, active, title), path, f"evaluate, {trained.split} images")
    numbers |= _aggregate(trained, num_images, num_latents)
    numbers["verdict"] = _verdict(numbers)
    numbers |= _without_dead_units(trained, dead, numbers["kl_per_dim"] is not None, nll_images, num_samples)
    return numbers


@torch.no_grad()
def units(trained: Trained, threshold: float) -> dict[str, Any]:
    """How much each latent dimension is used.

    Returns:
        `active_units`, the number of dimensions (of `num_units`) whose posterior mean has a variance over the images
        above `threshold` (Burda et al., 2016); `mean_variances`, these variances; `explained_variances`, see
        `explained`; `kl_per_dim`. The last two are None if they are not known.

    If the posterior mean has no formula (a flow, a chain), its variance is estimated by the covariance of two estimates
    of the mean from different latents: on average, their noise adds nothing to it.
    """
    num, moments, spreads, kl = trained.num_images(), [], [], []
    with trained.bar(num, "active units") as bar:
        for x, y in trained.batches():
            draw = trained.model.draw(x, y)
            a, b = (draw.mean(HALF).to(exact(x)) for _ in range(2))
            moments.append(torch.stack([a, b, a * b]).sum(dim=1))
            if draw.z_variance is not None:
                spreads.append(draw.z_variance.to(exact(x)).sum(dim=0))
            if draw.kl_per_dim is not None:
                kl.append(draw.kl_per_dim.to(exact(x)).sum(dim=0))
            bar.update(len(x))
    mean_a, mean_b, product = torch.stack(moments).sum(dim=0) / num
    variances = product - mean_a * mean_b
    shares = explained(variances, torch.stack(spreads).sum(dim=0) / num) if spreads else None
    return {
        "active_units": int((variances > threshold).sum()),
        "num_units": len(variances),
        "mean_variances": variances.tolist(),
        "explained_variances": None if shares is None else shares.tolist(),
        "kl_per_dim": (torch.stack(kl).sum(dim=0) / num).tolist() if kl else None,
    }


def explained(of_means: Tensor, within: Tensor) -> Tensor:
    """Var E[z | x] / Var z, `(D,)`: the share of the variance of the codes that the image explains, from 0 to 1.

    It does not depend on the scale of z: if means vary little but the posteriors are even narrower, z still contains
    much information about the image. For normals it is `1 - exp(-2 I)`, where I is the mutual information in nats.

    Arguments:
        of_means: The variance over the images of the posterior means, `(D,)`.
        within: The mean over the images of the posterior variances, `(D,)`.
    """
    return torch.where(of_means > 0, of_means / (of_means + within), 0)


def _verdict(numbers: dict[str, Any]) -> str:
    active, dims, information = numbers["active_units"], numbers["num_units"], numbers["mutual_information"]
    text = f"{active} of {dims} units active"
    if active == dims:
        text += ": all are in use, so a larger latent_dim may give a better elbo"
    elif active == 0 and information is not None and information >= UNUSED:
        text += f": the posterior means vary little, but z still has {information:.2f} nats of information on the image"
    return text


class Posteriors(NamedTuple):
    """The posteriors of B images, and K latents of each."""

    q: Distribution  # batch (B,), event (D,)
    z: Tensor  # (K, B, D)
    log_qz: Tensor  # log q(z | x, c), (K, B)
    log_pz: Tensor  # log p(z | c), (K, B)
    group: Tensor  # (B,): images with the same c have the same whole number


@torch.no_grad()
def elbo_surgery(
    parts: Sequence[Posteriors], num_latents: int, progress: Callable[[int], object] = lambda num: None
) -> dict[str, Any]:
    """Splits the mean KL of N images (Hoffman & Johnson, 2016): `mean_kl = mutual_information + marginal_kl`.

    With `q(z) = 1/N sum_n q(z | x_n)`, the first is `E log q(z | x_n) / q(z)`, the mutual information of z and the
    image, at most `log N`. The second is `E log q(z) / p(z)`, the KL of q(z) and the prior. E is over n and
    `q(z | x_n)`. All three are estimated from the same draws, with the same number of latents for each image (up to
    one); the sum in q(z) is over all N images.

    With a context, all this is computed for the images of each label, and averaged over the images: `I(x; z | y)`,
    whose bound is `log N_y`, and `KL(q(z | y) || p(z | y))`. `q(z | y)` is the mean over the N_y images of label y.

    Arguments:
        parts: The images in batches, with enough latents for each image that there are `num_latents` in total.
        num_latents: Number of draws, at least two.
        progress: Called many times, with the number of draws scored since the last call.

    Returns:
        The three numbers with their errors over draws, `mutual_information_bound`, and whether the mutual information
        is within 0.5 nats of that bound.
    """

    def drawn(name: str) -> Tensor:
        each = torch.cat([getattr(part, name).transpose(0, 1).flatten(0, 1) for part in parts])  # image after image
        return each[torch.arange(num_latents, device=each.device) * len(each) // num_latents]

    z, log_qz, log_pz = drawn("z"), drawn("log_qz").to(exact(parts[0].z)), drawn("log_pz").to(exact(parts[0].z))
    groups = torch.cat([part.group for part in parts])
    at = torch.arange(num_latents, device=z.device) * len(groups) // num_latents
    chunk = max(1, CHUNK // (max(len(part.group) for part in parts) * max(z.shape[-1], WIDTH)))
    log_q = torch.cat(
        [
            _log_aggregate(parts, z_some, group, progress)
            for z_some, group in zip(z.split(chunk), groups[at].split(chunk), strict=True)
        ]
    )
    numbers: dict[str, Any] = {}
    for name, values in (
        ("mean_kl", log_qz - log_pz),
        ("mutual_information", log_qz - log_q),
        ("marginal_kl", log_q - log_pz),
    ):
        numbers |= {name: float(values.mean()), f"{name}_se_draws": float(values.std()) / sqrt(num_latents)}
    sizes = groups.unique(return_counts=True)[1].to(log_q.dtype)
    bound = float((sizes * sizes.log()).sum() / len(groups))
    return numbers | {
        "mutual_information_bound": bound,
        "mutual_information_saturated": numbers["mutual_information"] > bound - SATURATED,
        "aggregate_images": len(groups),
    }


def _log_aggregate(parts: Sequence[Posteriors], z: Tensor, group: Tensor, progress: Callable[[int], object]) -> Tensor:
    """`log q(z)`, or `log q(z | y)`, `(S,)`, of latents `(S, D)` that belong to groups `(S,)`."""
    total = torch.full((len(z),), -torch.inf, dtype=exact(z), device=z.device)
    size = torch.zeros_like(group)
    for part in parts:
        is_of = group[:, None] == part.group
        log_qz = part.q.log_prob(z[:, None]).where(is_of, -torch.inf)  # (S, B)
        total = total.logaddexp(log_qz.to(total.dtype).logsumexp(dim=1))
        size += is_of.sum(dim=1)
    progress(len(z))
    return total - size.to(total.dtype).log()


def _aggregate(trained: Trained, num_images: int, num_latents: int) -> dict[str, Any]:
    if trained.model.infers_labels:
        reason = "model=m2 also infers the label: its KL is for z and y together, and q(z, y) is not computed here"
        return {"mutual_information": None, "mutual_information_refused": reason}
    if trained.model.context_dim and not trained.model.num_classes:
        reason = f"q(z|y) is computed within each class, and {trained.data.condition.no_classes}"
        return {"mutual_information": None, "mutual_information_refused": reason}
    num_images = min(num_images, trained.num_images())
    parts = []
    with torch.no_grad(), trained.bar(num_latents, f"q(z) of {num_images} images", "latents") as bar:
        for x, y in trained.batches(num_images=num_images):
            draw = trained.model.draw(x, y, -(-num_latents // num_images))
            group = y if trained.model.num_classes else torch.zeros(len(y), dtype=torch.long, device=y.device)
            parts.append(Posteriors(draw.q, draw.z, draw.log_qz, draw.log_pz, group))
        numbers = elbo_surgery(parts, num_latents, bar.update)
    if numbers["mutual_information_saturated"]:
        logger.warning(
            "mutual information: it is within %.1f nats of its bound, the log of the number of images. "
            "It shows that z tells these %d images apart; with a larger latents.num_images it may grow",
            SATURATED,
            num_images,
        )
    return numbers


class Pruned(Distribution):
    """`q(z_active | x) p(z_dead)`: a posterior without information about the image in its dead dimensions.

    The weights `p(x, z) / q(z)` then do not depend on the densities of these dimensions, and their mean is still p(x).

    Arguments:
        q: The posterior, batch `(B,)`, event `(D,)`, a product over the dimensions.
        p: The prior, batch `()` or `(B,)`, event `(D,)`, a product over the dimensions.
        dead: For each dimension, whether it is dead, `(D,)`.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name for it)

    def __init__(self, q: Independent, p: Independent, dead: Tensor) -> None:
        self.q, self.p, self.dead = q, p.expand(q.batch_shape), dead
        super().__init__(q.batch_shape, q.event_shape, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`(*sample_shape, B, D)`."""
        return torch.where(self.dead, self.p.sample(sample_shape), self.q.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """`(..., B, D) -> (..., B)`."""
        p, q = self.p.base_dist.log_prob(value), self.q.base_dist.log_prob(value)
        return torch.where(self.dead, p, q).sum(dim=-1)


def _without_dead_units(
    trained: Trained, dead: Sequence[bool], factorises: bool, num_images: int, num_samples: int
) -> dict[str, Any]:
    reason = None
    if not factorises:
        reason = "posterior and prior do not both factorise, so a single dimension cannot be removed"
    elif not any(dead):
        reason = "no unit is dead"
    if reason is not None:
        return {"nll_without_dead_units": None, "nll_without_dead_units_refused": reason}
    num_images = min(num_images, trained.num_images())
    parts: dict[str, list[Marginal]] = {"nll": [], "nll_without_dead_units": []}
    title = f"nll of {num_images} images, with and without dead units"
    with torch.no_grad(), trained.bar(2 * num_images * num_samples, title, "latents") as bar:
        for x, y in trained.batches(num_images=num_images):
            draw = trained.model.draw(x, y)
            q = Pruned(draw.q, draw.p, torch.tensor(dead, device=x.device))  # type: ignore[arg-type]
            for part, each in zip(parts.values(), (draw, Draw(x, draw.z, q, draw.p, draw.decode)), strict=True):
                part.append(importance_sampling(each, num_samples, bar.update))
    return {
        f"{name}_{num_images}_images{of}": nll_numbers(part)[f"nll{of}"]
        for name, part in parts.items()
        for of in ("", "_se_images", "_se_draws")
    }
