"""-log p(x) from posterior samples of Hamiltonian Monte Carlo (arXiv:1312.6114, appendix D)."""

from typing import Any

import torch

from vae_exp.estimators.annealing import Bridge
from vae_exp.estimators.importance import CHUNK, Marginal, importance_sampling, widest
from vae_exp.estimators.reciprocal import reciprocal_sampling
from vae_exp.metrics.ais import draw_with_slope
from vae_exp.metrics.nll import with_errors
from vae_exp.metrics.options import at_least
from vae_exp.runs.trained import Trained

__all__ = ["hmc"]


@torch.no_grad()
def hmc(
    trained: Trained,
    num_samples: int,
    num_images: int,
    chains: int,
    temperatures: int,
    transitions: int,
    leapfrog: int,
) -> dict[str, Any]:
    """`-log p(x)` of N images by a density fitted to posterior samples (Kingma & Welling, 2014, appendix D).

    Arguments:
        trained: The run.
        num_samples: K, latents for each image in the importance sampling that it is compared with.
        num_images: N, drawn at random with `seed`, see `Trained.subset`.
        chains: M, chains for each image.
        temperatures: Densities from the prior to the posterior, at which the step size is adapted.
        transitions: Proposals before the density is fitted, and before it is used.
        leapfrog: Leapfrog steps in each proposal.

    Returns:
        `nll_hmc_N_images`, a lower bound on average if the chains mix, and `nll_is_N_images`, an upper one, for the
        same images by importance sampling, with their errors; `hmc_acceptance`, and its minimum over images.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no prior, or none that Hamiltonian Monte Carlo can follow.
    """
    at_least(1, num_samples=num_samples, num_images=num_images, transitions=transitions, leapfrog=leapfrog)
    at_least(2, chains=chains, temperatures=temperatures)
    x, y = trained.images(num_images)
    first = draw_with_slope("hmc", trained, x[:1], y[:1])
    trained.reseed("hmc")
    together = max(1, CHUNK // (chains * widest(first)))
    found: list[Marginal] = []
    sampled: list[Marginal] = []
    rates = []
    total = len(x) * chains * (temperatures + 2 * transitions)
    with trained.bar(total, f"hmc, {chains} chains an image", "transitions") as bar:
        for some_x, some_y in zip(x.split(together), y.split(together), strict=True):
            draw = draw_with_slope("hmc", trained, some_x, some_y)
            sampled.append(importance_sampling(draw, num_samples))
            bridge = Bridge(draw.log_prior, draw.log_likelihood)
            start = draw.sample_prior(chains)
            estimate, rate = reciprocal_sampling(bridge, start, temperatures, transitions, leapfrog, bar.update)
            found.append(estimate)
            rates.append(rate)
    acceptance = torch.cat(rates)
    options = {"chains": chains, "temperatures": temperatures, "transitions": transitions, "leapfrog": leapfrog}
    numbers: dict[str, Any] = {"hmc": options}
    for how, parts in (("hmc", found), ("is", sampled)):
        log_px, variances = (torch.cat(each) for each in zip(*((p.log_px, p.variance) for p in parts), strict=True))
        numbers |= with_errors(f"nll_{how}_{len(x)}_images", -log_px, variances)
    return numbers | {"hmc_acceptance": float(acceptance.mean()), "hmc_acceptance_min": float(acceptance.min())}
