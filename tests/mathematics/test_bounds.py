"""Bounds of log p(x) by importance weights, in their order, on the model whose log p(x) is known."""

from functools import partial
from math import sqrt

import pytest
import torch
from helpers.linear import exact, exact_terms, make_at
from torch.distributions import kl_divergence

from vae_exp.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE

N, LATENTS, M, K = 4, 2, 4, 5
REPLICATES = 4000
# The posterior's distance from the true one, in standard deviations, and its scale relative to that one's.
WRONG = {"wide": (1.0, 1.5), "narrow": (1.5, 0.5), "far": (2.0, 1.2)}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_wrong(shift, scale):
    """A model whose posterior is wrong, and one image."""
    model, x = make_at([shift] * LATENTS, scale)
    return model.requires_grad_(False), x


def replicates(model, x, objective, num=REPLICATES):
    """The loss and draw of one image many times over, always from the same noise."""
    torch.manual_seed(1)
    return objective(model, x.expand(num, -1, -1, -1), None, model.step)


def assert_below(lower, upper):
    """Paired replicates: by more than five standard errors of the difference."""
    difference = upper - lower
    assert difference.mean() > 5 * difference.std() / sqrt(len(difference))


wrong = pytest.mark.parametrize(("shift", "scale"), WRONG.values(), ids=WRONG)


@wrong
def test_the_gap_is_known_and_not_small(shift, scale):
    """From N(0, 1) to N(shift, scale^2) the KL is (scale^2 + shift^2 - 1) / 2 - log scale, in each dimension."""
    model, x = make_wrong(shift, scale)
    log_px, true = exact(model, x)
    recon, kl = exact_terms(model, x)
    gap = log_px + recon + kl
    assert 1 < gap.item() < 5
    expected = LATENTS * ((scale**2 + shift**2 - 1) / 2 - torch.tensor(scale).double().log())
    torch.testing.assert_close(gap, expected[None])
    torch.testing.assert_close(gap, kl_divergence(model.encode(x), true))


@wrong
def test_bounds_are_in_order_and_below_log_px(shift, scale):
    model, x = make_wrong(shift, scale)
    log_px, _ = exact(model, x)
    recon, kl = exact_terms(model, x)
    loss = {}
    loss["elbo"], draw = replicates(model, x, ELBO(M * K))
    elbo = draw.elbo
    error = elbo.std() / sqrt(REPLICATES)
    assert abs(elbo.mean() + recon + kl) < 4 * error
    loss["miwae"], draw = replicates(model, x, MIWAE(M, K))
    miwae = draw.extras["iwae"]
    loss["iwae"], draw = replicates(model, x, IWAE(M * K))
    iwae = draw.extras["iwae"]
    for name, bound in (("elbo", elbo), ("miwae", miwae), ("iwae", iwae)):
        torch.testing.assert_close(loss[name], -bound.mean())
    assert_below(elbo, miwae)
    assert_below(miwae, iwae)
    assert_below(iwae, log_px)
    torch.testing.assert_close(draw.iwae, iwae)
    torch.testing.assert_close(draw.log_w.exp().mean(0).log(), iwae)  # by its definition


@wrong
def test_miwae_is_iwae_in_expectation(shift, scale):
    model, x = make_wrong(shift, scale)
    _, draw = replicates(model, x, MIWAE(M, K))
    miwae = draw.extras["iwae"]
    groups = draw.log_w.view(M, K, -1).exp().mean(1).log()
    torch.testing.assert_close(miwae, groups.mean(0))
    torch.manual_seed(2)
    iwae = IWAE(K)(model, x.expand(M * REPLICATES, -1, -1, -1), None, model.step)[1].extras["iwae"]
    error = (iwae.var() / len(iwae) + miwae.var() / len(miwae)).sqrt()
    assert abs(iwae.mean() - miwae.mean()) < 4 * error < 0.1


@wrong
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_ciwae_is_the_convex_combination(shift, scale, beta):
    model, x = make_wrong(shift, scale)
    elbo, iwae, ciwae = (
        -replicates(model, x, objective, 500)[0] for objective in (ELBO(K, kl="monte_carlo"), IWAE(K), CIWAE(K, beta))
    )
    torch.testing.assert_close(ciwae, beta * elbo + (1 - beta) * iwae)
    assert elbo < iwae


@wrong
def test_piwae_shows_the_bound_of_all_latents(shift, scale):
    model, x = make_wrong(shift, scale)
    loss, draw = replicates(model, x, PIWAE(M, K))
    expected, iwae = replicates(model, x, IWAE(M * K))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(draw.extras["iwae"], iwae.extras["iwae"])


def test_iwae_comes_to_log_px():
    model, x = make_wrong(*WRONG["wide"])  # a narrow posterior's weights have no variance
    log_px, _ = exact(model, x)
    loss, draw = replicates(model, x, IWAE(5000), num=50)
    assert draw.extras["iwae"].std() / sqrt(50) < 0.005
    assert abs(log_px.item() + loss.item()) < 0.02


@pytest.mark.parametrize("estimator", ["pathwise", "dreg"])
@pytest.mark.parametrize("objective", [partial(IWAE, K), partial(MIWAE, M, K), partial(CIWAE, K, 0.3)])
def test_every_bound_is_log_px_where_the_posterior_is_exact(objective, estimator):
    model, x = make_wrong(0.0, 1.0)
    log_px, _ = exact(model, x)
    loss, draw = replicates(model, x, objective(estimator=estimator), 10)
    torch.testing.assert_close(-loss, log_px[0])
    torch.testing.assert_close(draw.extras["iwae"], log_px.expand(10))
