"""Annealed importance sampling (Neal, 2001): from the prior to the posterior, by Hamiltonian Monte Carlo, and back."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor

from vae_exp.estimators.hmc import hmc
from vae_exp.precision import exact

__all__ = ["Path", "adapt", "anneal", "schedule"]

Density = Callable[[Tensor], Tensor]

TARGET = 0.65  # share of accepted proposals at which HMC costs least (Neal, 2011)
JITTER = 0.2  # of the step size: see `hmc`
START = 0.5  # step size, for a prior about as wide as N(0, 1)
RATE = 0.5  # of log step size, by what the acceptance is above the target
LEAST = 100  # proposals of a chain, within which step sizes settle


class Path(NamedTuple):
    """`log f_beta(z) = log p(z) + beta log p(x | z)`: from the prior, which integrates to 1, to what does to p(x)."""

    log_prior: Density  # (M, B, D) -> (M, B), normalised
    log_likelihood: Density

    def at(self, beta: float) -> Density:
        """`log f_beta`."""
        return lambda z: self.log_prior(z) + beta * self.log_likelihood(z)


def schedule(temperatures: int) -> list[float]:
    """`beta_0 = 0` to `beta_T = 1`: a sigmoid from -4 to 4, scaled to go from 0 to 1 (Grosse et al., 2015).

    A weight varies by the steps of beta times the spread of `log p(x | z)` where they are taken. The latter is
    hundreds of nats near the prior, so steps have to be short there; equal ones waste most of theirs further up.

    Arguments:
        temperatures: T.
    """
    raw = [1 / (1 + exp(4 - 8 * t / temperatures)) for t in range(temperatures + 1)]
    return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]


@torch.no_grad()
def adapt(
    path: Path, z: Tensor, betas: Sequence[float], leapfrog: int, progress: Callable[[int], object] = lambda num: None
) -> list[Tensor]:
    """Finds step sizes at which about `TARGET` of the proposals are accepted, on a run of its own.

    They hang on x and on the noise of this run alone: to the weights of another run they are constants, so that these
    stay unbiased, which a run that adapts as it goes does not.

    Arguments:
        path: Of B images.
        z: M latents of the prior for each, `(M, B, D)`; not those that `anneal` is given.
        betas: From 0 to 1.
        leapfrog: Steps of a proposal.
        progress: Told, again and again, how many chains have passed a temperature since.

    Returns:
        For each beta between the ends, the step size of each image, `(B, 1)`.
    """
    size = torch.full_like(z[0, :, :1], START)
    sizes = []
    for beta in betas[1:-1]:
        for _ in range(max(1, LEAST // len(betas))):
            z, accepted = hmc(path.at(beta), z, 1, leapfrog, size, JITTER)
            size = size * (RATE * (accepted.mean(dim=0) - TARGET)).exp()[:, None]
        sizes.append(size)
        progress(accepted.numel())
    return sizes


@torch.no_grad()
def anneal(
    path: Path,
    z: Tensor,
    betas: Sequence[float],
    step_sizes: Sequence[Tensor],
    leapfrog: int,
    progress: Callable[[int], object] = lambda num: None,
) -> tuple[Tensor, Tensor]:
    """Weights `w = prod_t f_{beta_t}(z_{t-1}) / f_{beta_{t-1}}(z_{t-1})`, z_t one step of HMC at beta_t from z_{t-1}.

    Started from the first density of the path, `E w` is the last one's integral over the first one's. Forwards, from
    exact samples of the prior, that is p(x): with M chains `log 1/M sum_m w_m` is at most log p(x) on average, by
    Jensen's inequality. Backwards (betas and step sizes reversed, each proposal being its own reverse) from exact
    samples of p(z | x), it is 1 / p(x): `-log 1/M sum_m w_m` is at least log p(x) on average (Grosse et al., 2015).
    The mean over chains needs them not to be independent: all may start from the one exact sample there is, the z that
    x was simulated from.

    Arguments:
        path: Of B images.
        z: Where M chains of each begin, `(M, B, D)`.
        betas: From 0 to 1, or from 1 to 0.
        step_sizes: For each beta between the ends, `(B, 1)`.
        leapfrog: Steps of a proposal.
        progress: Told, again and again, how many chains have passed a temperature since.

    Returns:
        `log w`, `(M, B)`, summed in float64; the share of accepted proposals of each image, `(B,)`.
    """
    log_w = torch.zeros(z.shape[:-1], dtype=exact(z), device=z.device)
    accepted = torch.zeros_like(z[0, :, 0])
    for t, (start, end) in enumerate(pairwise(betas)):
        log_w += (end - start) * path.log_likelihood(z).to(log_w.dtype)
        if t < len(step_sizes):  # a proposal at the last beta would change no weight
            z, share = hmc(path.at(end), z, 1, leapfrog, step_sizes[t], JITTER)
            accepted += share.mean(dim=0) / len(step_sizes)
            progress(share.numel())
    return log_w, accepted
