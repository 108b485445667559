"""Hamiltonian Monte Carlo (Neal, 2011, arXiv:1206.1901), one chain for each latent."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["hmc"]


def hmc(
    log_density: Callable[[Tensor], Tensor],
    z: Tensor,
    transitions: int,
    leapfrog: int,
    step_size: Tensor | float,
    jitter: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Moves chains by proposals that leave a density invariant.

    Arguments:
        log_density: `(..., D) -> (...)`, known up to a constant.
        z: The states of the chains, `(..., D)`.
        transitions: Proposals of each chain.
        leapfrog: Leapfrog steps of each proposal.
        step_size: Length of a leapfrog step.
        jitter: Largest share by which the step size of a proposal is changed, at random for each chain. Without jitter
            a trajectory of half a period of the density ends at the mirrored state, and its chain never mixes.

    Returns:
        The last states of the chains, `(..., D)`, and the share of accepted proposals of each chain, `(...)`.
    """
    z = z.detach()
    value, slope = _slope(log_density, z)
    accepted = torch.zeros_like(value)
    for _ in range(transitions):
        momentum = torch.randn_like(z)
        size = step_size * (1 + jitter * (2 * torch.rand_like(z[..., :1]) - 1))
        new, new_slope, v = z, slope, momentum + 0.5 * size * slope
        for i in range(leapfrog):
            new = new + size * v
            new_value, new_slope = _slope(log_density, new)
            v = v + (size if i < leapfrog - 1 else 0.5 * size) * new_slope
        energy = 0.5 * (v.square() - momentum.square()).sum(dim=-1)
        # A proposal that went to infinity gives nan. nan is not greater than a number, so the proposal is refused.
        accept = (new_value - value - energy).exp() > torch.rand_like(value)
        z = torch.where(accept[..., None], new, z)
        slope = torch.where(accept[..., None], new_slope, slope)
        value = torch.where(accept, new_value, value)
        accepted += accept
    return z, accepted / transitions


def _slope(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope
