"""Likelihoods against scipy, torch's losses, brute force and quadrature."""

from itertools import product
from math import log, pi, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

from vae_exp.likelihoods import SUPPORTS, Bernoulli, Normal

IMAGE = (2, 3, 4)


def bce(x, params):
    """The summed cross-entropy of torch, which takes logits."""
    x, params = torch.broadcast_tensors(x, params)
    return -F.binary_cross_entropy_with_logits(params, x, reduction="none").sum((-3, -2, -1))


def sse(x, params):
    """Sum of squared errors plus (CHW / 2) log pi."""
    return -((x - params) ** 2).sum((-3, -2, -1)) - x[0].numel() / 2 * log(pi)


def scipy_normal(scale):
    return lambda x, params: torch.from_numpy(stats.norm.logpdf(x.double(), params.double(), scale).sum((-3, -2, -1)))


# name: likelihood, log p(x | params) by someone else's formula, mean of the pixels
CASES = {
    "bernoulli": (Bernoulli(), bce, lambda logits: special.expit(logits.numpy())),
    "normal_sse": (Normal(sqrt(0.5)), sse, np.asarray),
    "normal_0.1": (Normal(0.1), scipy_normal(0.1), np.asarray),
    "normal_3": (Normal(3.0), scipy_normal(3.0), np.asarray),
}
each = pytest.mark.parametrize(("likelihood", "log_prob", "mean"), CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_params(likelihood, batch, image=IMAGE):
    p = getattr(likelihood, "params_per_pixel", 1)
    return torch.randn(*batch, p * image[0], *image[1:])


def make_pixels(likelihood, *shape):
    """Random pixels that lie in the support."""
    u = torch.rand(shape)
    return {"binary": u.round(), "levels": (255 * u).round() / 255, "unit": u, "real": 3 * u - 1}[likelihood.support]


@each
@pytest.mark.parametrize("batch", [(5,), (3, 5)])
def test_log_prob_is_the_formula_summed_over_pixels(likelihood, log_prob, mean, batch):
    params, x = make_params(likelihood, batch), make_pixels(likelihood, 5, *IMAGE)
    p = likelihood(params)
    assert p.batch_shape == batch
    assert p.event_shape == IMAGE
    # float32 sums of 24 terms, some of them in the hundreds: relative 1e-5
    torch.testing.assert_close(p.log_prob(x), log_prob(x, params), rtol=1e-5, atol=1e-4, check_dtype=False)
    np.testing.assert_allclose(p.mean, mean(params), rtol=1e-5, atol=1e-6)


@each
def test_probabilities_add_up_to_one_over_the_support(likelihood, log_prob, mean):
    assert likelihood.support in SUPPORTS
    if likelihood.support == "binary":  # all images of six pixels
        images = torch.tensor(list(product([0.0, 1.0], repeat=6))).view(64, 1, 2, 3)
        total = likelihood(make_params(likelihood, (), (1, 2, 3))).log_prob(images).double().exp().sum()
        assert total.item() == pytest.approx(1, abs=1e-5)
        return
    p = likelihood(make_params(likelihood, (), (1, 1, 1)))
    if likelihood.support == "levels":
        total = p.log_prob(torch.arange(256).view(256, 1, 1, 1) / 255).double().exp().sum().item()
    else:
        centre, width = p.mean.item(), 12 * p.stddev.item()
        low, high = (0, 1) if likelihood.support == "unit" else (centre - width, centre + width)
        v = torch.linspace(low, high, 20_001)
        total = torch.trapezoid(p.log_prob(v.view(-1, 1, 1, 1)).double().exp(), v.double()).item()
    assert total == pytest.approx(1, abs=1e-5)


@each
@pytest.mark.parametrize("value", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_log_prob_and_gradient_are_finite_at_extreme_params(likelihood, log_prob, mean, value):
    params = torch.full_like(make_params(likelihood, (4,)), value, requires_grad=True)
    result = likelihood(params).log_prob(make_pixels(likelihood, 4, *IMAGE))
    result.sum().backward()
    assert result.isfinite().all()
    assert params.grad.isfinite().all()
    assert value == 0 or params.grad.ne(0).any()  # a clamp would stop the gradient that leads back


@pytest.mark.parametrize("scale", [0, -1.0])
def test_a_scale_is_positive(scale):
    with pytest.raises(ValueError, match=r"likelihood\.scale"):
        Normal(scale)
