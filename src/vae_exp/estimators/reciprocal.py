"""log p(x) from samples of the posterior, by Hamiltonian Monte Carlo and a density fitted to them.

Kingma & Welling (2014, arXiv:1312.6114, appendix D); the identity is that of Gelfand & Dey (1994).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vae_exp.estimators.annealing import JITTER, RATE, START, TARGET, Bridge, schedule
from vae_exp.estimators.hmc import hmc
from vae_exp.estimators.importance import Marginal, of_weights
from vae_exp.precision import exact

__all__ = ["reciprocal_sampling"]


@torch.no_grad()
def reciprocal_sampling(
    bridge: Bridge,
    z: Tensor,
    temperatures: int = 100,
    transitions: int = 20,
    leapfrog: int = 10,
    progress: Callable[[int], object] = lambda num: None,
) -> tuple[Marginal, Tensor]:
    """`1 / p(x) = E_{p(z | x)} q(z) / p(x, z)`, for any density q; here the normal fitted to other samples of p(z | x).

    The chains go from the prior to the posterior through `temperatures` densities, at which the step size of each image
    is adapted. At each the chains of an image are drawn anew by their weights, as in a sequential Monte Carlo sampler
    (Del Moral et al., 2006): one that stayed behind in an improbable place would have all the weight in the mean
    below. Then they make `transitions` proposals, q is fitted to where they are, they make as many again, and
    the mean is taken there. If they have forgotten where q was fitted, the exponential of `-log_px` is unbiased for
    `1 / p(x)`, so that log_px is too large on average, by Jensen's inequality: importance sampling errs to the other
    side. q has the mean and the covariance of the samples, so latents must be few and the posterior near a normal.

    Arguments:
        bridge: That of B images.
        z: M latents from the prior for each image, `(M, B, D)`, where the chains begin; M at least 2 D + 2.
        temperatures: Densities from the prior to the posterior.
        transitions: Proposals before q is fitted, and before the mean is taken.
        leapfrog: Leapfrog steps of each proposal.
        progress: Called at each proposal with the number of chains.

    Returns:
        The estimate; the share of accepted proposals at the posterior of each image, `(B,)`.

    Raises:
        ValueError: If the chains are too few to fit q.
    """
    if len(z) < 2 * z.shape[-1] + 2:
        raise ValueError(
            f"{len(z)} chains: a normal is fitted to their ends, {2 * z.shape[-1] + 2} or more are needed for "
            f"{z.shape[-1]} latents"
        )
    size = torch.full_like(z[0, :, :1], START)
    shares = torch.zeros_like(size[:, 0])
    start, *betas = schedule(temperatures)
    states = []
    for number, beta in enumerate([*betas, *[1.0] * (2 * transitions)]):
        if number < len(betas):
            z = _resampled(z, (beta - start) * bridge.log_likelihood(z))
            start = beta
        z, accepted = hmc(bridge.at(beta), z, 1, leapfrog, size, JITTER)
        share, past = accepted.mean(dim=0), number - len(betas)
        if past < 0:
            size = size * (RATE * (share - TARGET)).exp()[:, None]
        else:
            shares += share / (2 * transitions)
            states += [z.to(exact(z))] if (past + 1) % transitions == 0 else []
        progress(accepted.numel())
    fitted, end = states
    mean = fitted.mean(dim=0)
    covariance = torch.einsum("mbd,mbe->bde", fitted - mean, fitted - mean) / (len(z) - 1)
    q = MultivariateNormal(mean, covariance, validate_args=False)
    inverse = of_weights(q.log_prob(end) - (bridge.log_prior(z) + bridge.log_likelihood(z)).to(end.dtype))
    return Marginal(-inverse.log_px, inverse.ess, {len(z): -inverse.log_px}), shares


def _resampled(z: Tensor, log_w: Tensor) -> Tensor:
    """`(M, B, D)`: M of the chains of each image, as often as their weights `(M, B)` say up to one (systematic)."""
    weights = log_w.to(exact(z)).softmax(dim=0)
    places = (torch.arange(len(z), device=z.device)[:, None] + torch.rand_like(weights[:1])) / len(z)
    rows = torch.searchsorted(weights.cumsum(dim=0).T.contiguous(), places.T.contiguous()).clamp(max=len(z) - 1).T
    return z.gather(0, rows[..., None].expand_as(z))
