"""The plane of two latents, on a grid of equal prior probability (Kingma & Welling, 2014, arXiv:1312.6114)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from zuko.distributions import NormalizingFlow

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.distributions import is_discrete
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["manifold", "quantiles"]


@torch.no_grad()
def quantiles(prior: Distribution, u: Tensor) -> Tensor:
    """`(N, D)` in (0, 1) -> `(N, D)`: if u is uniform, the results are latents from the prior.

    For a product of normals these are its inverse distribution functions; for a flow those of its base, then the flow.

    Raises:
        NoMeaningError: If the prior is neither.
    """
    base = prior.base if isinstance(prior, NormalizingFlow) else prior
    if not isinstance(base, Independent) or is_discrete(base):
        raise NoMeaningError(
            f"what=manifold: prior {type(prior).__name__} has no map from the unit square: train with "
            "prior=standard_normal or prior=flow, or see what=traversal, samples or embeddings"
        )
    z = base.base_dist.icdf(u)
    return prior.transform.inv(z) if isinstance(prior, NormalizingFlow) else z


@torch.no_grad()
def manifold(trained: Trained, out: Path, dims: Sequence[int], num_points: int, label: Label) -> dict[str, Any]:
    """Writes `manifold.png`: means of p(x|z) on a grid of equal probability under the prior (Kingma & Welling, 2014).

    The grid is `(i + 1/2) / num_points` along two dimensions of the prior, or of the base of a flow; all others stay at
    their median. The first of `dims` grows to the right, the second upwards.

    Raises:
        ConfigError: If the dimensions or the label do not exist, or a label is missing.
        NoMeaningError: If the prior has no such grid.
    """
    model, device = trained.model, trained.data.device
    model.require("prior", "what=traversal")
    if label is None and model.context_dim:
        y: Tensor | None = model.condition.typical(1).to(device)
    else:
        y = codes.labels(model, torch.empty(1, device=device), None, label)
    c = model.context(y)
    (latent_dim,) = model.prior(c).event_shape
    _check(latent_dim, dims, num_points)
    c = None if c is None else c.expand(num_points**2, -1)
    prior = model.prior(c)
    share = (torch.arange(num_points, device=device) + 0.5) / num_points
    u = torch.full((num_points**2, latent_dim), 0.5, device=device)
    u[:, dims[0]] = share.repeat(num_points)
    u[:, dims[1]] = share.flip(0).repeat_interleave(num_points)
    images = codes.decode(model, quantiles(prior, u), c)
    is_flow = isinstance(prior, NormalizingFlow)
    # For a flow the place in the base, because the grid is bent in z.
    ticks = [f"{z:.2f}" for z in torch.special.ndtri(share).tolist()]
    if is_flow:
        ticks = [f"{p:.2f}" for p in share.tolist()]
    across, up = (f"{'base ' if is_flow else ''}z{d}" for d in dims)
    told = "p(x|z)" if y is None else f"p(x|z, {model.condition.caption(y[0])})"
    rest = "" if latent_dim == 2 else ", the other latents at their median"
    beside = "distribution functions" if is_flow else "values"
    title = (
        f"{trained.cfg.name}\nmeans of {told} on a grid of equal probability under the prior{rest}\n"
        f"{across} to the right, {up} upwards; beside the images their {beside}"
    )
    path = out / "manifold.png"
    plots.grid(trained.shown(images), title, path, rows=ticks[::-1], columns=num_points, heads=ticks)
    return {}


def _check(latent_dim: int, dims: Sequence[int], num_points: int) -> None:
    if latent_dim < 2:
        raise NoMeaningError("what=manifold: one latent makes no plane; what=traversal shows it as a row")
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= d < latent_dim for d in dims):
        raise ConfigError(f"dims={dims}: two of the dimensions 0 to {latent_dim - 1} are needed")
    if num_points < 2:
        raise ConfigError(f"num_points={num_points}: at least 2 for each side are needed")
