"""The linear-Gaussian model, of which everything is known in closed form (probabilistic PCA)."""

from math import sqrt

import pytest
import torch
from helpers.linear import Affine, Flat, exact
from torch.distributions import MultivariateNormal, kl_divergence

from vae_exp import likelihoods
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal

B, N, LATENTS = 5, 4, 2


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_linear(scale):
    """`p(x | z) = N(W z + b, scale^2 I)` with a random posterior."""
    return VAE(
        Flat(N, N), Affine(LATENTS, N), DiagonalNormal(N, LATENTS), StandardNormal(LATENTS),
        likelihoods.Normal(scale), ELBO(),
    )  # fmt: skip


@torch.no_grad()
def set_exact_posterior(model):
    """Orthogonal columns in W make p(z | x) diagonal; the posterior becomes it."""
    w, v = model.decoder.weight, model.likelihood.scale**2
    w.copy_(torch.linalg.qr(torch.randn(N, LATENTS))[0] * torch.tensor([0.5, 2.0]))
    var = 1 / (1 + (w**2).sum(0) / v)
    model.encoder.weight.copy_(torch.eye(N))
    model.encoder.bias.copy_(-model.decoder.bias)
    model.posterior.mu.weight.copy_(var[:, None] * w.T / v)
    model.posterior.mu.bias.zero_()
    model.posterior.logvar.weight.zero_()
    model.posterior.logvar.bias.copy_(var.log())


@torch.no_grad()
def expected_elbo(model, x):
    """The ELBO without noise: log p(x | z) is quadratic in z, so 2 D points of variance sigma^2 give its mean."""
    q = model.encode(x)
    steps = sqrt(LATENTS) * torch.cat([torch.eye(LATENTS), -torch.eye(LATENTS)])
    return model.draw(x, z=q.mean + steps[:, None] * q.stddev).elbo.double()


scales = pytest.mark.parametrize("scale", [0.3, sqrt(0.5), 2.0])


@scales
def test_linear_elbo_misses_log_px_by_the_kl_to_the_true_posterior(scale):
    for _ in range(5):
        model, x = make_linear(scale), torch.randn(B, 1, 1, N)
        log_px, true = exact(model, x)
        with torch.no_grad():
            q = model.encode(x)
        q = MultivariateNormal(q.mean.double(), torch.diag_embed(q.variance.double()))
        gap = log_px - expected_elbo(model, x)
        assert (gap > 0).all()
        torch.testing.assert_close(gap, kl_divergence(q, true), rtol=1e-5, atol=1e-4)


@scales
def test_linear_elbo_of_samples_is_the_expected_one(scale):
    model, x, samples = make_linear(scale), torch.randn(B, 1, 1, N), 20_000
    with torch.no_grad():
        draw = model.draw(x, num_samples=samples)
    error = draw.log_px.std(0) / sqrt(samples)
    assert ((draw.elbo - expected_elbo(model, x)).abs() < 4 * error).all()


@scales
def test_linear_elbo_with_the_exact_posterior_is_log_px(scale):
    model, x = make_linear(scale), torch.randn(B, 1, 1, N)
    set_exact_posterior(model)
    log_px, _ = exact(model, x)
    torch.testing.assert_close(expected_elbo(model, x), log_px, rtol=0, atol=1e-4)
    with torch.no_grad():
        draw = model.draw(x, num_samples=100)
    each = (draw.log_px + draw.log_pz - draw.log_qz).double()  # Bayes: the same for every z
    torch.testing.assert_close(each, log_px.expand(100, B), rtol=0, atol=1e-4)


def test_samples_of_a_linear_model_have_its_moments():
    model, num = make_linear(1.0), 40_000
    w, b = (t.detach().double() for t in (model.decoder.weight, model.decoder.bias))
    images = model.sample(num).flatten(1).double()
    deviations = images - b
    products = deviations[:, :, None] * deviations[:, None]
    for values, expected in ((images, b), (products, w @ w.T)):
        assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / sqrt(num)).all()
