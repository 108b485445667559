"""Priors and posteriors against scipy, their samples against their moments."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from zuko.mixtures import GMM

from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal

D, CLASSES, SAMPLES = 3, 4, 40_000


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_moments(samples, mean, cov):
    """Mean and covariance of `samples (N, D)` within five standard errors each."""
    samples = samples.detach().double().numpy()
    deviations = samples - mean
    products = deviations[:, :, None] * deviations[:, None, :]
    for values, expected in ((samples, mean), (products, cov)):
        error = values.std(0) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - expected) < 5 * error).all()


def mixture(prior, c=None):
    """Weights `(..., M)`, means and scales `(..., M, D)` of a diagonal mixture, from its raw parameters."""
    if c is None:
        logits, loc, log_scale = (phi.detach().numpy() for phi in prior.phi)
    else:
        phi = prior.hyper(c).detach().numpy()
        m = prior.components
        logits, loc, log_scale = np.split(phi, [m, m + m * D], axis=-1)
        loc, log_scale = (a.reshape(*a.shape[:-1], m, D) for a in (loc, log_scale))
    return special.softmax(logits, axis=-1), loc, np.exp(log_scale)


def test_standard_normal_is_scipys():
    prior = StandardNormal(D)
    z = 3 * torch.randn(7, 5, D)
    expected = stats.multivariate_normal(np.zeros(D), np.eye(D)).logpdf(z)
    for c in (None, torch.randn(5, CLASSES)):
        p = prior(c)
        assert (p.batch_shape, p.event_shape) == ((), (D,))
        np.testing.assert_allclose(p.log_prob(z), expected, rtol=1e-5)
    assert_moments(prior().sample((SAMPLES,)), np.zeros(D), np.eye(D))


def test_standard_normal_has_nothing_to_learn_or_store():
    prior = StandardNormal(D)
    assert list(prior.parameters()) == []
    assert prior.state_dict() == {}


@pytest.mark.parametrize("conditional", [False, True])
def test_mixture_is_the_weighted_sum_of_scipys_normals(conditional):
    prior = GMM(D, CLASSES if conditional else 0, components=5, covariance_type="diagonal")
    c = torch.eye(CLASSES) if conditional else None
    p = prior(c)
    assert (p.batch_shape, p.event_shape) == ((CLASSES,) if conditional else (), (D,))
    z = 2 * torch.randn(7, CLASSES, D)
    weights, loc, scale = mixture(prior, c)
    parts = stats.norm.logpdf(z[:, :, None], loc, scale).sum(-1)
    expected = special.logsumexp(parts, b=weights, axis=-1)
    np.testing.assert_allclose(p.log_prob(z).detach(), expected, rtol=1e-4, atol=1e-4)

    samples = p.sample((SAMPLES,)).view(SAMPLES, -1, D)
    weights, loc, scale = (a.reshape(-1, *a.shape[-k:]) for a, k in ((weights, 1), (loc, 2), (scale, 2)))
    for b in range(samples.shape[1]):
        mean = weights[b] @ loc[b]
        within = np.diag(weights[b] @ scale[b] ** 2)
        between = (weights[b][:, None] * (loc[b] - mean)).T @ (loc[b] - mean)
        assert_moments(samples[:, b], mean, within + between)


def test_conditional_mixture_depends_on_its_own_context_only():
    prior = GMM(D, CLASSES, components=5, covariance_type="diagonal")
    z = torch.randn(D).expand(CLASSES, D)
    log_pz = prior(torch.eye(CLASSES)).log_prob(z)
    assert len(set(log_pz.tolist())) == CLASSES
    alone = torch.stack([prior(c[None]).log_prob(z[:1])[0] for c in torch.eye(CLASSES)])
    torch.testing.assert_close(log_pz, alone, rtol=1e-5, atol=1e-5)


def heads(posterior, h):
    """The mean and the standard deviation that the two linear heads mean."""
    h = h.detach().numpy()
    mu, logvar = (
        h @ head.weight.detach().numpy().T + head.bias.detach().numpy() for head in (posterior.mu, posterior.logvar)
    )
    return mu, np.sqrt(np.exp(logvar))


def test_diagonal_normal_is_scipys():
    posterior, h, z = DiagonalNormal(6, D), 3 * torch.randn(5, 6), torch.randn(7, 5, D)
    q = posterior(h)
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))
    mu, sigma = heads(posterior, h)
    assert np.ptp(sigma) > 0.5  # far from the case where sigma, its square and its root agree
    expected = stats.norm.logpdf(z, mu, sigma).sum(-1)
    np.testing.assert_allclose(q.log_prob(z).detach(), expected, rtol=1e-4, atol=1e-4)
    samples = q.rsample((SAMPLES,))
    for b in range(5):
        assert_moments(samples[:, b], mu[b], np.diag(sigma[b] ** 2))


def test_diagonal_normal_samples_carry_the_pathwise_gradient():
    posterior, h = DiagonalNormal(6, D), torch.randn(1, 6)
    z = posterior(h).rsample((1,))
    z.sum().backward()
    # z = mu + exp(logvar / 2) eps, hence dz/dmu = 1 and dz/dlogvar = (z - mu) / 2
    torch.testing.assert_close(posterior.mu.bias.grad, torch.ones(D))
    half = (z[0, 0] - posterior.mu(h)[0]).detach() / 2
    torch.testing.assert_close(posterior.logvar.bias.grad, half, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.logvar.weight.grad, half[:, None] * h, rtol=1e-4, atol=1e-5)
