"""A normal with a scale for each pixel, learned or from the decoder without bounds."""

import pytest
import torch
from helpers.runs import SMALL, composed
from scipy import special, stats

from vae_exp.config import ConfigError
from vae_exp.likelihoods import Gaussian, GaussianPixels
from vae_exp.runs.build import build

IMAGE = (2, 3, 4)


def sums(each):
    return torch.from_numpy(each.sum((-3, -2, -1)))


@pytest.mark.parametrize("mean", ["identity", "sigmoid"])
def test_each_pixel_has_its_own_scale_in_scipys_formula(mean):
    torch.manual_seed(0)
    likelihood, x, params = GaussianPixels(IMAGE, mean=mean), torch.rand(5, *IMAGE), torch.randn(3, 5, *IMAGE)
    scale = torch.rand(IMAGE) + 0.1
    likelihood.log_scale.data = scale.log()
    centre = params.double().numpy() if mean == "identity" else special.expit(params.double().numpy())
    p = likelihood(params)
    assert (p.batch_shape, p.event_shape) == ((3, 5), IMAGE)
    expected = sums(stats.norm.logpdf(x.double(), centre, scale.double()))
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-5, atol=1e-4, check_dtype=False)
    draws = p.sample((4000,))
    torch.testing.assert_close(draws.std(0).mean((0, 1)), scale, rtol=0.02, atol=0)


def test_at_the_root_mean_squared_errors_of_the_pixels_the_likelihood_is_highest():
    torch.manual_seed(0)
    x, params = torch.randn(50, *IMAGE) * (torch.rand(IMAGE) + 0.1), torch.randn(50, *IMAGE)
    likelihood = GaussianPixels(IMAGE)
    likelihood.log_scale.data = (x - params).square().mean(0).sqrt().log()
    best = likelihood(params).log_prob(x).mean()
    (slope,) = torch.autograd.grad(best, likelihood.log_scale)
    assert slope.abs().max() < 1e-4
    likelihood.log_scale.data[0, 0, 0] += 0.1
    assert likelihood(params).log_prob(x).mean() < best


def test_with_one_scale_it_is_gaussian_shared():
    params, x = torch.randn(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    shared, pixels = (
        build(composed(*SMALL, f"likelihood={name}"))[0] for name in ("gaussian_shared", "gaussian_pixels")
    )
    torch.testing.assert_close(pixels.likelihood(params).log_prob(x), shared.likelihood(params).log_prob(x))
    assert pixels.likelihood.log_scale.shape == (1, 8, 8)


@pytest.mark.parametrize("mean", ["identity", "sigmoid"])
def test_without_bounds_the_decoder_gives_the_logarithm_of_the_variance(mean):
    """Kingma & Welling (2014), appendix C.2."""
    torch.manual_seed(0)
    x, (mu, raw) = torch.rand(5, *IMAGE), torch.randn(2, 5, *IMAGE)
    centre = mu.double().numpy() if mean == "identity" else special.expit(mu.double().numpy())
    p = Gaussian(None, None, mean=mean)(torch.cat([mu, 4 * raw], dim=1))
    expected = sums(stats.norm.logpdf(x.double(), centre, (2 * raw.double()).exp()))
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-5, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("likelihood=gaussian", "likelihood.min_scale=null"), r"likelihood\.min_scale=None .* both null"),
        (("likelihood=sigma_vae", "likelihood.min_scale=null"), r"likelihood\.min_scale=None: a scale must be"),
        (("likelihood=discretized_logistic", "likelihood.max_scale=null"), r"likelihood\.min_scale=.*max_scale=None"),
        (("likelihood=gaussian_pixels", "likelihood.image_shape=[1,8,7]"), "likelihood"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        build(composed(*SMALL, *words))
