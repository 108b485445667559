"""Hamiltonian Monte Carlo against densities whose moments, and an integrator whose errors, are known."""

from math import inf, nan

import numpy as np
import pytest
import torch
from helpers.quadrature import assert_moments
from torch.distributions import MultivariateNormal

from vae_exp.estimators.hmc import hmc

CHAINS = 4000


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def correlated():
    """Standard deviations 1.5 and 0.6, correlation 0.8."""
    cov = torch.tensor([[2.25, 0.72], [0.72, 0.36]]).double()
    return MultivariateNormal(torch.tensor([1.0, -2.0]).double(), cov)


def standard(z):
    return -0.5 * z.square().sum(dim=-1)


@pytest.mark.parametrize("shape", [(CHAINS,), (8, CHAINS // 8)])
@pytest.mark.parametrize("step_size", [0.1, 0.6])
def test_a_density_is_left_as_it_is(step_size, shape):
    """Exact samples stay exact, with a step that loses one proposal in five, too."""
    p = correlated()
    z, accepted = hmc(p.log_prob, p.sample(shape), 30, 4, step_size)
    assert z.shape == (*shape, 2)
    assert accepted.shape == shape
    assert not z.requires_grad
    assert_moments(z.flatten(0, -2), p.mean.numpy(), p.covariance_matrix.numpy())
    assert (accepted.mean() > 0.97) if step_size < 0.2 else (0.6 < accepted.mean() < 0.9)


def test_proposals_are_refused_as_often_as_they_must_be():
    """Without the refusals the same step gives another density: the test above can tell."""
    p = correlated()
    z = p.sample((CHAINS,))
    for _ in range(30):
        momentum = torch.randn_like(z)
        for i in range(5):
            half = 0.5 if i in (0, 4) else 1.0
            leaf = z.clone().requires_grad_()
            momentum = momentum + half * 0.6 * torch.autograd.grad(p.log_prob(leaf).sum(), leaf)[0]
            z = z + 0.6 * momentum * (i < 4)
    with pytest.raises(AssertionError):
        assert_moments(z, p.mean.numpy(), p.covariance_matrix.numpy())


def test_a_far_start_comes_to_the_density():
    p = correlated()
    start = torch.tensor([-20.0, 30.0]).double().expand(CHAINS, 2)
    z, _ = hmc(p.log_prob, start, 100, 5, 0.3)
    assert_moments(z, p.mean.numpy(), p.covariance_matrix.numpy())


@pytest.mark.parametrize(("leapfrog", "step_size"), [(1, 1.0), (1, 1.9), (3, 0.8), (10, 0.5)])
def test_the_acceptance_is_that_of_the_integrator(leapfrog, step_size):
    """On N(0, 1) a proposal is linear in z and momentum: `E min(1, exp(-energy error))`, by the midpoint rule."""
    kick = np.array([[1.0, 0.0], [-step_size / 2, 1.0]])
    drift = np.array([[1.0, step_size], [0.0, 1.0]])
    proposal = np.linalg.matrix_power(kick @ drift @ kick, leapfrog)
    line = -10 + 0.02 * (np.arange(1000) + 0.5)
    states = np.stack(np.meshgrid(line, line), axis=-1)
    energy, proposed = ((s**2).sum(-1) / 2 for s in (states, states @ proposal.T))
    expected = (np.exp(-energy) * np.minimum(1, np.exp(energy - proposed))).sum() * 0.02**2 / (2 * np.pi)
    z, accepted = hmc(standard, torch.randn(CHAINS, 1).double(), 10, leapfrog, step_size)
    assert 0.1 < expected < 0.99
    assert abs(accepted.mean() - expected) < 4 * accepted.std() / CHAINS**0.5
    assert_moments(z, np.zeros(1), np.eye(1))


def test_a_step_size_at_random_mixes_where_a_fixed_one_mirrors():
    """On N(0, 1) two steps of sqrt(2) each map (z, momentum) to (-z, -momentum), exactly."""
    start = torch.full((CHAINS, 1), 2.0).double()
    fixed, accepted = hmc(standard, start, 20, 2, 2**0.5)
    torch.testing.assert_close(fixed.abs(), start)
    assert accepted.min() == 1
    mixed, _ = hmc(standard, start, 60, 2, 2**0.5, jitter=0.2)
    assert_moments(mixed, np.zeros(1), np.eye(1))


def test_small_steps_are_accepted():
    """The error of the energy falls as the step's square."""
    rates = []
    for step_size in (0.8, 0.4, 0.2, 0.01):
        _, accepted = hmc(standard, torch.randn(CHAINS, 3).double(), 5, 1, step_size)
        rates.append(accepted.mean().item())
    assert rates == sorted(rates)
    assert rates[-1] > 0.999


@pytest.mark.parametrize("step_size", [2.5, 1e3, 1e30, 1e200])
def test_steps_beyond_what_is_stable_are_refused(step_size):
    """Above 2 standard deviations the leapfrog runs away, to infinity and nan."""
    start = torch.randn(CHAINS, 2)
    z, accepted = hmc(standard, start, 3, 60, step_size)
    assert torch.equal(z, start)
    assert (accepted == 0).all()


@pytest.mark.parametrize("outside", [nan, -inf])
def test_what_has_no_density_is_never_entered(outside):
    """A normal cut at zero: `E z = sqrt(2 / pi)`."""

    def log_density(z):
        return torch.where(z[..., 0] > 0, standard(z), standard(z) + outside)

    z, accepted = hmc(log_density, torch.randn(CHAINS, 1).double().abs(), 20, 3, 0.3)
    assert (z > 0).all()
    assert (accepted.mean() > 0.2) & (accepted.mean() < 0.95)
    assert_moments(z, np.array([np.sqrt(2 / np.pi)]), np.array([[1 - 2 / np.pi]]))


def test_chains_do_not_know_of_each_other():
    """A chain that runs away leaves its neighbours alone."""

    def log_density(z):
        return standard(z) * torch.tensor([1.0, 1e30, 1.0])

    z, accepted = hmc(log_density, torch.ones(3, 2), 20, 3, 0.3)
    assert z.isfinite().all()
    assert accepted[1] == 0
    assert (accepted[[0, 2]] > 0.5).all()
    assert torch.equal(z[1], torch.ones(2))
