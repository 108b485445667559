"""The terms of a draw against closed forms, torch.distributions, scipy, quadrature and brute force."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from zuko.mixtures import GMM

from vae_exp import likelihoods
from vae_exp.draws import Draw

B, D, IMAGE = 4, 3, (1, 2, 3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def diagonal(*shape):
    """A random diagonal normal whose scales are far from 1, in double precision."""
    return Independent(Normal(torch.randn(*shape).double(), (0.7 * torch.randn(*shape).double()).exp()), 1)


def standard():
    return Independent(Normal(torch.zeros(D).double(), torch.ones(D).double()), 1)


def make_draw(q, p, k=2, logits=None):
    b = q.batch_shape[0]
    logits = torch.randn(k, b, *IMAGE).double() if logits is None else logits
    x = torch.rand(b, *IMAGE).double().round()
    return Draw(x, q.sample((k,)), q, p, lambda z: Independent(Bernoulli(logits=logits), 3))


PRIORS = {"standard": standard, "shared": lambda: diagonal(D), "own": lambda: diagonal(B, D)}
priors = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def test_kl_to_the_standard_normal_is_the_closed_form():
    q = diagonal(B, D)
    draw, mu, var = make_draw(q, standard()), q.mean, q.variance
    terms = -0.5 * (1 + var.log() - mu**2 - var)  # Kingma & Welling (2014), appendix B
    torch.testing.assert_close(draw.kl_per_dim, terms)
    torch.testing.assert_close(draw.kl, terms.sum(-1))


@priors
@pytest.mark.parametrize("k", [1, 3])
def test_kl_is_that_of_torch(prior, k):
    q, p = diagonal(B, D), prior()
    draw = make_draw(q, p, k)
    assert draw.kl.shape == (B,)
    assert draw.kl_per_dim.shape == (B, D)
    torch.testing.assert_close(draw.kl, kl_divergence(q, p.expand((B,))))
    for d in range(D):  # each dimension against its own pair of normals, q first
        ratio = p.stddev[..., d] / q.stddev[:, d]
        shift = (q.mean[:, d] - p.mean[..., d]) / p.stddev[..., d]
        torch.testing.assert_close(draw.kl_per_dim[:, d], ratio.log() + (ratio**-2 + shift**2 - 1) / 2)


@priors
def test_kl_is_the_mean_log_ratio_of_samples_from_q(prior):
    samples = 20_000
    draw = make_draw(diagonal(B, D), prior(), samples, logits=torch.zeros(1, B, *IMAGE).double())
    ratio = draw.log_qz - draw.log_pz
    error = ratio.std(0) / samples**0.5
    assert ((ratio.mean(0) - draw.kl).abs() < 4 * error).all()
    assert (4 * error < 0.2 * draw.kl).all()  # the bound is sharp enough to tell


@priors
def test_kl_is_never_negative_and_zero_only_for_equals(prior):
    p = prior()
    assert (make_draw(diagonal(1000, D), standard()).kl_per_dim >= 0).all()
    assert (make_draw(diagonal(B, D), p).kl > 0).all()
    torch.testing.assert_close(make_draw(p.expand((B,)), p).kl, torch.zeros(B).double())


@priors
@pytest.mark.parametrize("k", [1, 3])
def test_log_densities_are_scipys_summed_over_pixels_and_dimensions(prior, k):
    q, p = diagonal(B, D), prior()
    draw = make_draw(q, p, k)
    probability = draw.px.mean
    for i in range(k):
        for b in range(B):
            pixels = stats.bernoulli.logpmf(draw.x[b], probability[i, b]).sum()
            assert draw.log_px[i, b].item() == pytest.approx(pixels)
            for terms, r in ((draw.log_qz, q), (draw.log_pz, p.expand((B,)))):
                z = stats.norm.logpdf(draw.z[i, b], r.mean[b], r.stddev[b]).sum()
                assert terms[i, b].item() == pytest.approx(z)


@priors
@pytest.mark.parametrize("k", [1, 3])
def test_elbo_is_expected_log_likelihood_minus_kl(prior, k):
    draw = make_draw(diagonal(B, D), prior(), k)
    for terms in (draw.log_px, draw.log_pz, draw.log_qz):
        assert terms.shape == (k, B)
    for terms in (draw.recon, draw.kl, draw.elbo):
        assert terms.shape == (B,)
    torch.testing.assert_close(draw.recon, -sum(draw.log_px) / k)
    torch.testing.assert_close(draw.elbo, sum(draw.log_px) / k - kl_divergence(draw.q, draw.p.expand((B,))))


def test_elbo_of_k_latents_is_the_mean_of_the_elbos_of_each():
    draw = make_draw(diagonal(B, D), GMM(D, components=2).double()(), 5)
    each = [Draw(draw.x, z[None], draw.q, draw.p, lambda _, i=i: px_of(draw, i)).elbo for i, z in enumerate(draw.z)]
    torch.testing.assert_close(draw.elbo, sum(each) / 5)


@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 2, 3)])
@pytest.mark.parametrize("likelihood", [likelihoods.Normal(1.0), likelihoods.Bernoulli()])
def test_params_of_another_shape_than_the_images_are_refused(likelihood, shape):
    """Torch would broadcast, and give every image the same number where the params are no images."""
    q = diagonal(B, D)
    for x in (torch.rand(B, *IMAGE).double().round(), torch.zeros(B, 5).double()):
        draw = Draw(x, q.sample((2,)), q, standard(), lambda z: likelihood(torch.zeros(2, B, *shape).double()))
        with pytest.raises(ValueError, match=r"likelihood: .* an image is "):
            draw.elbo  # noqa: B018


def px_of(draw, i):
    return Independent(Bernoulli(logits=draw.px.base_dist.logits[i : i + 1]), 3)


@pytest.mark.parametrize("conditional", [False, True])
def test_kl_to_a_mixture_is_the_integral(conditional):
    samples, b = 100_000, 2
    prior = GMM(1, b if conditional else 0, components=3, covariance_type="diagonal")
    p = prior.double().requires_grad_(False)(torch.eye(b).double() if conditional else None)
    q = Independent(Normal(torch.tensor([[0.3], [-1.0]]).double(), torch.tensor([[0.7], [1.5]]).double()), 1)
    draw = make_draw(q, p, samples, logits=torch.zeros(1, b, *IMAGE).double())
    assert draw.kl_per_dim is None  # a mixture does not factorise
    assert draw.kl.shape == (b,)
    for i in range(b):
        weights = special.softmax(p.logits[i] if conditional else p.logits)
        loc, scale = (t[i, :, 0] if conditional else t[:, 0] for t in (p.base.mean, p.base.stddev))
        normal = stats.norm(q.mean[i].item(), q.stddev[i].item())

        def integrand(z, normal=normal, weights=weights, loc=loc, scale=scale):
            log_pz = special.logsumexp(stats.norm.logpdf(z, loc, scale), b=weights)
            return normal.pdf(z) * (normal.logpdf(z) - log_pz)

        expected, _ = integrate.quad(integrand, *normal.interval(1 - 1e-15), limit=200)
        error = (draw.log_qz - draw.log_pz)[:, i].std().item() / np.sqrt(samples)
        assert abs(draw.kl[i].item() - expected) < 4 * error < 0.05
