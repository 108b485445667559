"""Annealed importance sampling (Neal, 2001): from the prior to the posterior, by Hamiltonian Monte Carlo, and back.

Neal: arXiv:physics/9803008. The way back, bidirectional Monte Carlo: Grosse et al. (2015), arXiv:1511.02543.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor

from vae_exp.estimators.hmc import hmc
from vae_exp.precision import exact

__all__ = ["JITTER", "RATE", "START", "TARGET", "Bridge", "adapt", "anneal", "schedule"]

Density = Callable[[Tensor], Tensor]

TARGET = 0.65  # share of accepted proposals at which HMC costs least (Neal, 2011)
JITTER = 0.2  # of the step size: see `hmc`
START = 0.5  # first step size, for a prior about as wide as N(0, 1)
RATE = 0.5  # change of the log step size, per unit of acceptance above the target
LEAST = 100  # proposals of a chain, after which step sizes have settled


class Bridge(NamedTuple):
    """`log f_beta(z) = log p(z) + beta log p(x | z)`: its integral goes from 1 at beta = 0 to p(x) at beta = 1."""

    log_prior: Density  # (M, B, D) -> (M, B), normalised
    log_likelihood: Density

    def at(self, beta: float) -> Density:
        """`log f_beta`."""
        return lambda z: self.log_prior(z) + beta * self.log_likelihood(z)


def schedule(temperatures: int) -> list[float]:
    """`beta_0 = 0` to `beta_T = 1`: a sigmoid from -4 to 4, scaled to go from 0 to 1 (Grosse et al., 2015).

    The variance of a weight comes from the steps of beta times the spread of `log p(x | z)` at that beta. This spread
    is hundreds of nats near the prior, so the steps must be short there; equal steps would waste most of them at larger
    beta.

    Arguments:
        temperatures: T.
    """
    raw = [1 / (1 + exp(4 - 8 * t / temperatures)) for t in range(temperatures + 1)]
    return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]


@torch.no_grad()
def adapt(
    bridge: Bridge,
    z: Tensor,
    betas: Sequence[float],
    leapfrog: int,
    progress: Callable[[int], object] = lambda num: None,
) -> list[Tensor]:
    """Finds step sizes at which about `TARGET` of the proposals are accepted, in a separate run.

    They depend only on x and on the noise of this run. For the weights of another run they are constants, so these
    weights stay unbiased; the weights of a run that adapts its own step sizes would not.

    Arguments:
        bridge: That of B images.
        z: M latents from the prior for each image, `(M, B, D)`; not the ones that `anneal` is given.
        betas: From 0 to 1.
        leapfrog: Leapfrog steps of each proposal.
        progress: Called at each temperature with the number of chains that have passed it.

    Returns:
        For each beta between the ends, the step size of each image, `(B, 1)`.
    """
    size = torch.full_like(z[0, :, :1], START)
    sizes = []
    for beta in betas[1:-1]:
        for _ in range(max(1, LEAST // len(betas))):
            z, accepted = hmc(bridge.at(beta), z, 1, leapfrog, size, JITTER)
            size = size * (RATE * (accepted.mean(dim=0) - TARGET)).exp()[:, None]
        sizes.append(size)
        progress(accepted.numel())
    return sizes


@torch.no_grad()
def anneal(
    bridge: Bridge,
    z: Tensor,
    betas: Sequence[float],
    step_sizes: Sequence[Tensor],
    leapfrog: int,
    progress: Callable[[int], object] = lambda num: None,
) -> tuple[Tensor, Tensor]:
    """Weights `w = prod_t f_{beta_t}(z_{t-1}) / f_{beta_{t-1}}(z_{t-1})`, z_t one step of HMC at beta_t from z_{t-1}.

    If the chains start from the first density of the bridge, `E w` is the integral of the last density divided by that
    of the first. Forwards, from exact samples of the prior, this is p(x): with M chains `log 1/M sum_m w_m` is at most
    log p(x) on average, by Jensen's inequality. Backwards, from exact samples of p(z | x) (betas and step sizes
    reversed; each proposal is its own reverse), it is 1 / p(x): `-log 1/M sum_m w_m` is at least log p(x) on average
    (Grosse et al., 2015). The chains need not be independent for this: all may start from the only exact sample there
    is, the z that x was simulated from.

    Arguments:
        bridge: That of B images.
        z: The starts of M chains for each image, `(M, B, D)`.
        betas: From 0 to 1, or from 1 to 0.
        step_sizes: For each beta between the ends, `(B, 1)`.
        leapfrog: Leapfrog steps of each proposal.
        progress: Called at each temperature with the number of chains that have passed it.

    Returns:
        `log w`, `(M, B)`, summed in float64; the share of accepted proposals of each image, `(B,)`.
    """
    log_w = torch.zeros(z.shape[:-1], dtype=exact(z), device=z.device)
    accepted = torch.zeros_like(z[0, :, 0])
    for t, (start, end) in enumerate(pairwise(betas)):
        log_w += (end - start) * bridge.log_likelihood(z).to(log_w.dtype)
        if t < len(step_sizes):  # a proposal at the last beta would change no weight
            z, share = hmc(bridge.at(end), z, 1, leapfrog, step_sizes[t], JITTER)
            accepted += share.mean(dim=0) / len(step_sizes)
            progress(share.numel())
    return log_w, accepted
