"""Likelihoods against scipy, torch's losses, brute force and quadrature."""

from itertools import product
from math import log, pi, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, special, stats
from torch.distributions import constraints

from vae_exp.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    GaussianShared,
    Laplace,
    NegativeBinomial,
    Normal,
    Poisson,
    SigmaVAE,
    ZeroInflatedNegativeBinomial,
)
from vae_exp.supports import levels, support_of

IMAGE = (2, 3, 4)
BITS, UNIT, COUNTS = constraints.boolean, constraints.unit_interval, constraints.nonnegative_integer


def bce(x, params):
    """The summed cross-entropy of torch, which takes logits."""
    x, params = torch.broadcast_tensors(x, params)
    return -F.binary_cross_entropy_with_logits(params, x, reduction="none").sum((-3, -2, -1))


def sse(x, params):
    """Sum of squared errors plus (CHW / 2) log pi."""
    return -((x - params) ** 2).sum((-3, -2, -1)) - x[0].numel() / 2 * log(pi)


def scipy_normal(scale):
    return lambda x, params: torch.from_numpy(stats.norm.logpdf(x.double(), params.double(), scale).sum((-3, -2, -1)))


def numpy64(*tensors):
    return tuple(tensor.detach().double().numpy() for tensor in tensors)


def scales(raw, low, high):
    return np.exp(np.log(low) + np.log(high / low) * special.expit(raw))


def scipy_gaussian(x, params):
    mu, raw = numpy64(*params.chunk(2, dim=-3))
    return torch.from_numpy(stats.norm.logpdf(x.double(), mu, scales(raw, 0.01, 1)).sum((-3, -2, -1)))


def scipy_sigmoid_normal(scale):
    return lambda x, params: scipy_normal(scale)(x, torch.from_numpy(sigmoid(params)))


def sigmoid(params):
    return special.expit(params.double().numpy())


def scipy_sigmoid_gaussian(x, params):
    mu, raw = params.chunk(2, dim=-3)
    return scipy_gaussian(x, torch.cat([torch.from_numpy(sigmoid(mu)), raw.double()], dim=-3))


def scipy_laplace(x, params):
    return torch.from_numpy(stats.laplace.logpdf(x.double(), params.double(), 0.1).sum((-3, -2, -1)))


def continuous_bernoulli(x, params):
    """With the normaliser as an integral: 1 / C = int_0^1 exp(x l - softplus(l)) dx, in float64."""
    x, logits = numpy64(x, params)
    area = np.expm1(logits) / logits / (1 + np.exp(logits))
    return torch.from_numpy((x * logits - np.logaddexp(0, logits) - np.log(area)).sum((-3, -2, -1)))


def log_masses(params):
    """Of the 256 levels, (256, ..., C, H, W), in float64 from scipy's logistic, from the tail that loses no digits."""
    mu, raw = numpy64(*params.chunk(2, dim=-3))
    scale, column = scales(raw, 0.001, 1), (-1, *[1] * mu.ndim)
    inner = (np.arange(255) + 0.5) / 255
    low, high = np.reshape([-np.inf, *inner], column), np.reshape([*inner, np.inf], column)
    below = [stats.logistic.logcdf(edge, mu, scale) for edge in (low, high)]
    above = [stats.logistic.logsf(edge, mu, scale) for edge in (low, high)]
    with np.errstate(divide="ignore", invalid="ignore"):  # in the branch that is not taken
        left = below[1] + np.log(-np.expm1(below[0] - below[1]))
        right = above[0] + np.log(-np.expm1(above[1] - above[0]))
    return np.where(np.reshape(np.arange(256) / 255, column) < mu, left, right)


def masses(params):
    return np.exp(log_masses(params))


def discretized_logistic(x, params):
    log_p, k = log_masses(params), (255 * x).round().long().numpy()
    k = np.broadcast_to(k, log_p.shape[1:])
    return torch.from_numpy(np.take_along_axis(log_p, k[None], axis=0)[0].sum((-3, -2, -1)))


def by_level(params):
    return params.unflatten(-3, (256, -1)).movedim(-4, 0)


def categorical(x, params):
    k = torch.broadcast_to((255 * x).round().long(), by_level(params).shape[1:])
    return by_level(params).double().log_softmax(0).gather(0, k[None])[0].sum((-3, -2, -1))


def mean_level(p):
    return np.tensordot(np.arange(256) / 255, p, 1)


def continuous_mean(logits):
    """E x by the trapezoid rule."""
    v = np.linspace(0, 1, 20_001).reshape(-1, *[1] * logits.ndim)
    density = np.exp(v * logits.double().numpy())
    return np.trapezoid(v * density, v, axis=0) / np.trapezoid(density, v, axis=0)


def fitted(scale, **options):
    """A sigma-VAE as validation and test score by it."""
    likelihood = SigmaVAE(**options)
    likelihood.scale.fill_(scale)
    return likelihood.eval()


def of_counts(likelihood):
    """A likelihood of counts whose training counts have the mean 4."""
    likelihood.mean_count.fill_(4)
    return likelihood


def scipy_poisson(x, params):
    return torch.from_numpy(stats.poisson.logpmf(*numpy64(x), 4 * np.exp(*numpy64(params))).sum((-3, -2, -1)))


def nbinom(params, parts):
    """SciPy's, with mean 4 exp(a), and the logit of a zero if there is one."""
    rate, raw, *logit = numpy64(*params.chunk(parts, dim=-3))
    k = scales(raw, 0.01, 1e4)
    return stats.nbinom(k, k / (k + 4 * np.exp(rate))), *logit


def scipy_negative_binomial(x, params):
    return torch.from_numpy(nbinom(params, 2)[0].logpmf(*numpy64(x)).sum((-3, -2, -1)))


def scipy_zero_inflated(x, params):
    counts, logit = nbinom(params, 3)
    (x,) = numpy64(x)
    mass = special.expit(-logit) * counts.pmf(x) + special.expit(logit) * (x == 0)
    return torch.from_numpy(np.log(mass).sum((-3, -2, -1)))


def zero_inflated_mean(params):
    counts, logit = nbinom(params, 3)
    return special.expit(-logit) * counts.mean()


# name: likelihood, log p(x | params) by someone else's formula, mean of the pixels
CASES = {
    "bernoulli": (Bernoulli(), bce, lambda logits: special.expit(logits.numpy())),
    "normal_sse": (Normal(sqrt(0.5)), sse, np.asarray),
    "normal_0.1": (Normal(0.1), scipy_normal(0.1), np.asarray),
    "gaussian": (Gaussian(), scipy_gaussian, lambda params: params.chunk(2, dim=-3)[0].numpy()),
    "gaussian_shared": (GaussianShared(0.1), scipy_normal(0.1), np.asarray),
    "laplace": (Laplace(0.1), scipy_laplace, np.asarray),
    "sigma_vae": (fitted(0.1), scipy_normal(0.1), np.asarray),
    "gaussian, sigmoid": (
        Gaussian(mean="sigmoid"),
        scipy_sigmoid_gaussian,
        lambda params: sigmoid(params.chunk(2, dim=-3)[0]),
    ),
    "gaussian_shared, sigmoid": (GaussianShared(0.1, mean="sigmoid"), scipy_sigmoid_normal(0.1), sigmoid),
    "sigma_vae, sigmoid": (fitted(0.1, mean="sigmoid"), scipy_sigmoid_normal(0.1), sigmoid),
    "continuous_bernoulli": (ContinuousBernoulli(), continuous_bernoulli, continuous_mean),
    "discretized_logistic": (DiscretizedLogistic(), discretized_logistic, lambda params: mean_level(masses(params))),
    "categorical": (Categorical(), categorical, lambda params: mean_level(by_level(params).softmax(0).numpy())),
    "poisson": (of_counts(Poisson()), scipy_poisson, lambda params: 4 * np.exp(params.numpy())),
    "negative_binomial": (
        of_counts(NegativeBinomial()),
        scipy_negative_binomial,
        lambda params: nbinom(params, 2)[0].mean(),
    ),
    "zero_inflated": (of_counts(ZeroInflatedNegativeBinomial()), scipy_zero_inflated, zero_inflated_mean),
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
    support = support_of(likelihood, IMAGE)
    u = torch.rand(shape)
    return {
        BITS: u.round(),
        levels: (255 * u).round() / 255,
        UNIT: u,
        COUNTS: (9 * u).floor(),
        constraints.real: 3 * u - 1,
    }[support]


@each
@pytest.mark.parametrize("batch", [(5,), (3, 5)])
def test_log_prob_is_the_formula_summed_over_pixels(likelihood, log_prob, mean, batch):
    params, x = make_params(likelihood, batch), make_pixels(likelihood, 5, *IMAGE)
    p = likelihood(params)
    assert p.batch_shape == batch
    assert p.event_shape == IMAGE
    # float32 sums of 24 terms, some of them in the hundreds: relative 1e-5
    torch.testing.assert_close(p.log_prob(x), log_prob(x, params), rtol=1e-5, atol=1e-4, check_dtype=False)
    np.testing.assert_allclose(p.mean.detach(), mean(params), rtol=1e-5, atol=1e-5)


@each
def test_pixels_are_scored_one_by_one_too(likelihood, log_prob, mean):
    params, x = make_params(likelihood, (3, 5)), make_pixels(likelihood, 5, *IMAGE)
    p = likelihood(params)
    each = p.base_dist.log_prob(x.expand(3, *x.shape))
    assert each.shape == (3, 5, *IMAGE)
    torch.testing.assert_close(each.sum((-3, -2, -1)), p.log_prob(x), rtol=1e-5, atol=1e-4)
    # A part of the image: what is summed is that of an image which is this part.
    column = likelihood(params[..., :1]).log_prob(x[..., :1])
    torch.testing.assert_close(each[..., :1].sum((-3, -2, -1)), column, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("logit", [0.0, 5e-4, -2e-3, 0.5, -5.0, 30.0, -1e4])
def test_the_continuous_bernoulli_is_drawn_from_its_distribution(logit):
    draws = ContinuousBernoulli()(torch.full((1, 1, 20_000), logit)).sample().flatten().double().numpy()
    assert ((draws >= 0) & (draws <= 1)).all()
    # Mirrored, so that the exponentials stay finite: F(x) = (e^(|l| (x - 1)) - e^-|l|) / (1 - e^-|l|).
    size, draws = abs(logit), draws if logit >= 0 else 1 - draws
    cdf = (lambda x: (np.exp(size * (x - 1)) - np.exp(-size)) / -np.expm1(-size)) if size else (lambda x: x)
    assert stats.kstest(draws, cdf).pvalue > 1e-3


@each
def test_probabilities_add_up_to_one_over_the_support(likelihood, log_prob, mean):
    support = support_of(likelihood, IMAGE)
    if support is BITS:  # all images of six pixels
        images = torch.tensor(list(product([0.0, 1.0], repeat=6))).view(64, 1, 2, 3)
        total = likelihood(make_params(likelihood, (), (1, 2, 3))).log_prob(images).double().exp().sum()
        assert total.item() == pytest.approx(1, abs=1e-5)
        return
    p = likelihood(make_params(likelihood, (), (1, 1, 1)))
    if support is levels:
        total = p.log_prob(torch.arange(256).view(256, 1, 1, 1) / 255).double().exp().sum().item()
    elif support is COUNTS:
        total = p.log_prob(torch.arange(20_000.0).view(-1, 1, 1, 1)).double().exp().sum().item()
    else:
        centre, width = p.mean.item(), 12 * p.stddev.item()
        low, high = (0, 1) if support is UNIT else (centre - width, centre + width)
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
    # A clamp would stop the gradient that leads back; a sigmoid mean has none left so far out, as float32 rounds it.
    is_flat = getattr(likelihood, "mean", "identity") == "sigmoid"
    assert value == 0 or is_flat or params.grad.ne(0).any()


@pytest.mark.parametrize("scale", [0, -1.0])
def test_a_scale_is_positive(scale):
    with pytest.raises(ValueError, match=r"likelihood\.scale"):
        Normal(scale)


@pytest.mark.parametrize("logit", [0.0, 1e-4, -1e-3, 0.09, 0.11, -5.0, 30.0, -90.0])
def test_the_continuous_bernoulli_is_right_near_one_half_and_far_from_it(logit):
    x = torch.linspace(0, 1, 11).view(-1, 1, 1, 1)
    params = torch.full((1, 1, 1), logit)
    ours = ContinuousBernoulli()(params).log_prob(x).double().numpy()
    area = integrate.quad(lambda v: np.exp(v * logit - max(logit, 0)), 0, 1, points=[0, 1], limit=200)[0]
    expected = x.flatten().numpy().astype(float) * logit - max(logit, 0) - np.log(area)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["discretized_logistic", "categorical"])
def test_levels_are_drawn_as_often_as_their_masses_say(name):
    likelihood, _, mean = CASES[name]
    params = make_params(likelihood, (), (1, 1, 2))
    p = likelihood(params)
    draws = p.sample((20_000,))
    assert set((255 * draws).round().unique().tolist()) <= set(range(256))
    error = draws.double().std(0) / 20_000**0.5
    assert ((draws.double().mean(0) - torch.as_tensor(mean(params))).abs() < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (Gaussian, {"min_scale": 2}),
        (DiscretizedLogistic, {"min_scale": 0}),
        (Laplace, {"scale": 0}),
        (GaussianShared, {"init_scale": -1}),
        (Categorical, {"params_per_pixel": 3}),
        (Gaussian, {"mean": "tanh"}),
        (GaussianShared, {"mean": None}),
        (SigmaVAE, {"mean": "logistic"}),
    ],
)
def test_arguments_out_of_range_are_named(cls, kwargs):
    with pytest.raises(ValueError, match=f"likelihood.{next(iter(kwargs))}={next(iter(kwargs.values()))}"):
        cls(**kwargs)


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_the_scale_of_a_batch_has_a_finite_gradient_at_extreme_params(value):
    params = torch.full((4, *IMAGE), value, requires_grad=True)
    result = SigmaVAE()(params).log_prob(make_pixels(SigmaVAE(), 4, *IMAGE))
    result.sum().backward()
    assert result.isfinite().all()
    assert params.grad.isfinite().all()
    assert params.grad.ne(0).any()
