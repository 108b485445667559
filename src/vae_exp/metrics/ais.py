"""-log p(x) by annealed importance sampling, and the size of its error by bidirectional Monte Carlo.

Log-likelihoods of decoders: arXiv:1611.04273. Bidirectional Monte Carlo: arXiv:1511.02543.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from vae_exp.config import NoMeaningError
from vae_exp.draws import Draw
from vae_exp.estimators.annealing import TARGET, Bridge, adapt, anneal, schedule
from vae_exp.estimators.importance import CHUNK, Marginal, importance_sampling, of_weights, widest
from vae_exp.metrics.nll import with_errors
from vae_exp.metrics.options import at_least
from vae_exp.runs.trained import Trained

__all__ = ["ais", "draw_with_slope"]

FAR = 0.15  # distance of the acceptance from its target that causes a warning
logger = logging.getLogger("vae_exp")


@torch.no_grad()
def ais(
    trained: Trained, num_samples: int, num_images: int, chains: int, temperatures: int, leapfrog: int
) -> dict[str, Any]:
    """`-log p(x)` (of a CVAE `-log p(x | y)`) of N images by annealed importance sampling (Wu et al., 2017).

    Arguments:
        trained: The run.
        num_samples: K, latents for each image in the importance sampling that it is compared with.
        num_images: N, drawn at random with `seed`, see `Trained.subset`.
        chains: M, chains for each image.
        temperatures: T, steps from the prior to the posterior.
        leapfrog: Leapfrog steps in each proposal.

    Returns:
        `nll_ais_N_images`, an upper bound on average, and `nll_is_N_images`, for the same images by importance
        sampling, with their errors and effective sample sizes; the mean and minimum of the acceptance over images. For
        the same number of images made by the model: `bdmc_lower` and `bdmc_upper`, between which the mean of log p(x)
        is on average, and `bdmc_gap`, in nats (Grosse et al., 2015).

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If there is no prior, or none that Hamiltonian Monte Carlo can follow.
    """
    at_least(1, num_samples=num_samples, num_images=num_images, leapfrog=leapfrog)
    at_least(2, chains=chains, temperatures=temperatures)
    x, y = trained.images(num_images)
    first = draw_with_slope("ais", trained, x[:1], y[:1])
    trained.reseed("ais")
    # Memory does not grow with the number of images; for most models one part holds all of them.
    together = max(1, CHUNK // (chains * widest(first)))
    betas = schedule(temperatures)
    annealed: list[Marginal] = []
    sampled: list[Marginal] = []
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    rates: list[Tensor] = []
    title = f"ais, {chains} chains an image"
    with trained.bar(5 * len(x) * chains * (temperatures - 1), title, "transitions") as bar:

        def forwards(draw: Draw) -> tuple[Bridge, list[Tensor], Marginal]:
            bridge = Bridge(draw.log_prior, draw.log_likelihood)
            sizes = adapt(bridge, draw.sample_prior(chains), betas, leapfrog, bar.update)
            log_w, accepted = anneal(bridge, draw.sample_prior(chains), betas, sizes, leapfrog, bar.update)
            rates.append(accepted)
            return bridge, sizes, of_weights(log_w)

        for some_x, some_y in zip(x.split(together), y.split(together), strict=True):
            draw = draw_with_slope("ais", trained, some_x, some_y)
            sampled.append(importance_sampling(draw, num_samples))
            annealed.append(forwards(draw)[-1])
            # An image that the model makes of z has z as an exact sample of its posterior.
            z = draw.sample_prior(1)
            draw = draw_with_slope("ais", trained, draw.decode(z).sample()[0], some_y)
            bridge, sizes, bound = forwards(draw)
            lower.append(bound.log_px)
            log_w, _ = anneal(bridge, z.expand(chains, -1, -1), betas[::-1], sizes[::-1], leapfrog, bar.update)
            upper.append(-of_weights(log_w).log_px)
    acceptance = torch.cat(rates)
    if abs(acceptance.mean() - TARGET) > FAR:
        logger.warning(
            "ais: %.0f %% of the proposals are accepted, but the target is %.0f %%: the bounds are loose; a larger "
            "ais.temperatures makes them tighter",
            100 * acceptance.mean(),
            100 * TARGET,
        )
    numbers: dict[str, Any] = {"ais": {"chains": chains, "temperatures": temperatures, "leapfrog": leapfrog}}
    for how, parts in (("ais", annealed), ("is", sampled)):
        name, ess = f"nll_{how}_{len(x)}_images", torch.cat([part.ess for part in parts])
        variances = torch.cat([part.variance for part in parts])
        log_px = torch.cat([part.log_px for part in parts])
        numbers |= with_errors(name, -log_px, variances)
        numbers |= {f"{name}_ess_median": float(ess.median()), f"{name}_ess_min": float(ess.min())}
    numbers |= {"ais_acceptance": float(acceptance.mean()), "ais_acceptance_min": float(acceptance.min())}
    low, high = torch.cat(lower), torch.cat(upper)
    for name, each in (("bdmc_lower", low), ("bdmc_upper", high), ("bdmc_gap", high - low)):
        numbers |= with_errors(name, each)
    return numbers | {"bdmc_images": len(x)}


def draw_with_slope(metric: str, trained: Trained, x: Tensor, y: Tensor) -> Draw:
    """A draw of images whose latents can be moved along gradients.

    Raises:
        NoMeaningError: If they cannot; it names the metric.
    """
    trained.model.require("slope", "metrics=nll" if trained.model.has("density") else "")
    draw = trained.model.draw(x, y)
    if not draw.q.has_rsample:
        raise NoMeaningError(f"{metric} moves latents along gradients, but these are discrete: choose metrics=nll")
    return draw
