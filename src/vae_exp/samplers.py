"""Densities to draw latents from: the prior, or a density fitted to the aggregate posterior after training.

Ex-post density estimation (Ghosh et al., 2020, arXiv:1903.12436): the decoder was trained on latents from
`q(z) = 1/N sum_n q(z | x_n)`. If the prior differs from it, samples of the prior lie where the decoder was never
trained. An autoencoder has no prior, so for it this is the only way to sample. Neural spline flow: arXiv:1906.04032.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, MultivariateNormal, TransformedDistribution

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.distributions import Mixture
from vae_exp.draws import sample
from vae_exp.precision import full_precision, on_cpu
from vae_exp.runs.trained import Trained

__all__ = ["KINDS", "Density", "Sampler", "fit_flow", "fit_mixture", "sampler"]

Density = Callable[[Tensor | None], Distribution]  # the interface of a prior: c -> p(z | c), batch () or (B,)
KINDS = ("prior", "gmm", "flow")
COMPONENTS = 10
STEPS, BATCH = 500, 500  # to fit a flow


class Sampler(NamedTuple):
    """A density over latents, its name and its numbers."""

    density: Density
    name: str  # for titles
    numbers: dict[str, Any]  # if it was fitted: mean log density of validation codes under it, and under the prior

    def __call__(self, num: int, c: Tensor | None = None) -> Tensor:
        """Latents, `(num, D)`; `c (num, context_dim)` if the model is conditional."""
        p = self.density(c)
        return p.sample() if p.batch_shape else p.sample((num,))


@torch.no_grad()
def sampler(trained: Trained, kind: str, key: str = "sampler") -> Sampler:
    """The density that latents are drawn from.

    `gmm` and `flow` are fitted to one draw of q(z | x) for each training image (for an autoencoder, to its code); for a
    conditional model within each class, given the label.

    Arguments:
        trained: The run.
        kind: `prior`; `gmm`, a mixture of 10 normals with full covariances, or fewer if a class has less than 2 D
            images for each normal; `flow`, a neural spline flow (Durkan et al., 2019).
        key: The name of the option that chose `kind`, for messages.

    Raises:
        ConfigError: If there is no such kind.
        NoMeaningError: If there is no prior, or if no density can be fitted to the codes.
    """
    if kind not in KINDS:
        raise ConfigError(f"{key}={kind}: choose one of {', '.join(KINDS)}")
    prior = trained.model.prior
    if kind == "prior":
        trained.model.require("prior", f"{key}=gmm (flow), a density fitted to the codes")
        return Sampler(prior, "the prior", {})
    if kind == "gmm" and trained.model.context_dim and not trained.model.num_classes:
        raise NoMeaningError(f"{key}=gmm is fitted within each class, and {trained.data.condition.no_classes}: flow")
    z, c = _codes(trained, "train", key)
    trained.reseed(key, kind)
    mean, scale = z.mean(dim=0), z.std(dim=0).clamp(min=1e-6)
    fit = fit_mixture if kind == "gmm" else fit_flow
    standard = fit((z - mean) / scale, c, trained)

    def density(c: Tensor | None = None) -> Distribution:
        return TransformedDistribution(standard(c), [AffineTransform(mean, scale, event_dim=1)], validate_args=False)

    z, c = _codes(trained, "val", key)
    numbers = {"sampler_log_density": _log_density(density, z, c)}
    if trained.model.has("prior"):
        numbers["prior_log_density"] = _log_density(prior, z, c)
    return Sampler(density, {"gmm": "a mixture", "flow": "a flow"}[kind] + " fitted to q(z)", numbers)


def fit_mixture(z: Tensor, c: Tensor | None, trained: Trained) -> Density:
    """A mixture of normals with full covariances fitted to `z (N, D)` by EM, within each class of one-hot `c (N, Y)`.

    Raises:
        NoMeaningError: If a class has fewer than 2 images.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    classes = [z] if c is None else [z[c[:, k] == 1] for k in range(c.shape[1])]
    least = min(map(len, classes))
    if least < 2:
        raise NoMeaningError(f"a class has {least} training images, a mixture in it needs at least 2: choose flow")
    components = max(1, min(COMPONENTS, least // (2 * z.shape[1])))
    fits = []
    with trained.bar(len(classes), "mixture of normals", "fits") as bar, warnings.catch_warnings():
        # If the fit stops early the result is still a density, and the log density of validation codes is reported.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for each in classes:
            fits.append(GaussianMixture(components, random_state=trained.seed % 2**32).fit(on_cpu(each).numpy()))
            bar.update(1)

    def of_all(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(fit, name)) for fit in fits])

    factor = torch.linalg.cholesky(of_all("covariances_"))
    log_weights, means, factor = (t.to(z) for t in (of_all("weights_").log(), of_all("means_"), factor))

    def density(c: Tensor | None = None) -> Distribution:
        chosen = 0 if c is None else c.argmax(dim=-1)
        normals = MultivariateNormal(means[chosen], scale_tril=factor[chosen], validate_args=False)
        return Mixture(log_weights[chosen], normals)

    return density


@torch.enable_grad()
def fit_flow(z: Tensor, c: Tensor | None, trained: Trained) -> Density:
    """A neural spline flow fitted to `z (N, D)` by maximum likelihood, given `c (N, Y)`; z should be standardised."""
    from zuko.flows import NSF

    flow = NSF(z.shape[1], 0 if c is None else c.shape[1], transforms=3, hidden_features=(64, 64)).to(z)
    rate = 1e-2
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    with trained.bar(STEPS, "flow", "steps") as bar:
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / STEPS)
            rows = torch.randint(len(z), (BATCH,), device=z.device)
            loss = -flow(None if c is None else c[rows]).log_prob(z[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update(1)
    return flow.requires_grad_(False)


def _log_density(density: Density, z: Tensor, c: Tensor | None) -> float:
    """The mean of `log p(z | c)`, nats per code."""
    rows = torch.arange(len(z), device=z.device).split(BATCH)
    return float(on_cpu(torch.cat([density(None if c is None else c[i]).log_prob(z[i]) for i in rows])).mean())


def _codes(trained: Trained, split: str, key: str) -> tuple[Tensor, Tensor | None]:
    """A draw of q(z | x, c) for each image, `(N, D)`, and c `(N, context_dim)` or None."""
    model, parts = trained.model, []
    with trained.bar(trained.num_images(split), f"{split} codes") as bar:
        for x, y in trained.batches(split):
            label = model.label(x, y)
            q = model.encode(x, label)
            if not q.has_rsample:
                raise NoMeaningError(f"{key}: discrete latents have no density to fit, their prior is uniform: prior")
            with full_precision(x):
                parts.append((sample(q, 1)[0][0], model.context(label)))
            bar.update(len(x))
    contexts = [c for _, c in parts if c is not None]
    return torch.cat([z for z, _ in parts]), torch.cat(contexts) if contexts else None
