"""The source `linear_gaussian`: its density, its draws, and a model that knows the truth."""

import re
from math import log, pi

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, composed
from scipy import stats
from torch.distributions import MultivariateNormal

from vae_exp.data import LinearGaussian
from vae_exp.runs.build import build, make


def source(**options) -> LinearGaussian:
    sizes = {"train_size": 20_000, "val_size": 30, "test_size": 40}
    defaults = {"image_shape": [1, 2, 3], "latent_dim": 2, "noise": 0.4, "seed": 1}
    return LinearGaussian(**(defaults | sizes | options))


@pytest.mark.parametrize("shape", [[1, 1, 1], [1, 2, 3], [1, 1, 16]])
@pytest.mark.parametrize("latent_dim", [1, 2, 20])
def test_log_prob_is_that_of_the_normal(shape, latent_dim):
    truth = source(image_shape=shape, latent_dim=latent_dim)
    x = 2 * torch.randn(7, *shape, generator=torch.Generator().manual_seed(0))
    covariance = truth.weight @ truth.weight.T + 0.4**2 * np.eye(len(truth.bias))
    expected = stats.multivariate_normal(truth.bias, covariance).logpdf(x.flatten(1).double().numpy())
    assert truth.log_prob(x).dtype == torch.float64
    np.testing.assert_allclose(truth.log_prob(x), expected, rtol=1e-10)


def test_log_prob_is_the_integral_over_z():
    """One latent: the trapezoidal rule on p(x | z) p(z), which is exact to rounding for such a function."""
    truth = source(latent_dim=1)
    z = np.linspace(-12, 12, 4001)
    x = truth.load(None)["val"].x
    means = z[:, None] * truth.weight[:, 0] + truth.bias
    log_px = stats.norm(means, 0.4).logpdf(x.flatten(1)[:, None].double().numpy()).sum(-1)
    log_p = np.log((np.exp(log_px) * stats.norm.pdf(z)).sum(1) * (z[1] - z[0]))
    np.testing.assert_allclose(truth.log_prob(x), log_p, rtol=1e-10)


def test_draws_have_the_moments_of_the_model():
    truth = source()
    x = truth.load(None)["train"].x.flatten(1).double().numpy()
    deviations = x - truth.bias
    products = deviations[:, :, None] * deviations[:, None]
    covariance = truth.weight @ truth.weight.T + 0.4**2 * np.eye(6)
    for values, expected in ((x, truth.bias), (products, covariance)):
        assert (np.abs(values.mean(0) - expected) < 5 * values.std(0) / np.sqrt(len(x))).all()
    # -log p(x) has the entropy of the normal as its mean, N / 2 as its variance.
    entropy = 0.5 * np.linalg.slogdet(covariance)[1] + 3 * log(2 * pi) + 3
    log_prob = truth.log_prob(torch.from_numpy(x).reshape(-1, 1, 2, 3))
    assert -log_prob.mean() == pytest.approx(entropy, abs=5 * (3 / len(x)) ** 0.5)
    assert log_prob.var() == pytest.approx(3, rel=0.1)


def test_splits_hang_on_the_seed_and_not_on_each_others_sizes():
    splits, again, fewer, other = (source(**o).load(None) for o in ({}, {}, {"train_size": 5}, {"seed": 2}))
    assert {name: split.x.shape for name, split in splits.items()} == {
        "train": (20_000, 1, 2, 3), "val": (30, 1, 2, 3), "test": (40, 1, 2, 3),
    }  # fmt: skip
    for name, (x, y) in splits.items():
        assert x.dtype == torch.float32
        assert y.tolist() == [-1] * len(x)
        assert torch.equal(x, again[name].x)
        assert not torch.equal(x, other[name].x)
    assert torch.equal(fewer["val"].x, splits["val"].x)
    assert torch.equal(fewer["test"].x, splits["test"].x)
    assert not torch.equal(splits["test"].x[:30], splits["val"].x)
    assert not np.array_equal(source().weight, source(seed=2).weight)


@pytest.mark.parametrize("wrong", ["latent_dim=0", "noise=0", "train_size=0", "val_size=0", "test_size=0"])
def test_a_number_out_of_range_is_named(wrong):
    name, value = wrong.split("=")
    with pytest.raises(ValueError, match=re.escape(f"data.source.{wrong}")):
        source(**{name: int(value)})


@pytest.mark.slow
def test_the_config_ties_the_likelihood_to_the_noise():
    assert composed("data=linear_gaussian", "data.source.noise=0.3").likelihood.scale == 0.3
    assert composed("data=linear_gaussian", "likelihood.scale=0.5").likelihood.scale == 0.5
    assert composed("data=fake", "likelihood=sse").likelihood.scale == pytest.approx(0.5**0.5)
    data = make(composed("data=linear_gaussian"), "data")
    data.setup("fit")
    assert (data.representation.is_real, data.representation.title) == (True, "real numbers")
    assert len(data.splits["train"].x) == 5000


def test_a_model_that_knows_the_truth_gives_its_log_px():
    """With the true decoder and prior, p(x | z) p(z) / p(z | x) is p(x) for every z; and the ELBO lies below."""
    small = [option for option in SMALL if not option.startswith("data")]
    model, data = build(composed(*small, "data=linear_gaussian", "decoder.hidden=[]", "latent_dim=4"))
    data.setup("test")
    truth, x = data.source, data.splits["test"].x[:50]
    w, b, v = torch.from_numpy(truth.weight), torch.from_numpy(truth.bias), truth.noise**2
    [linear] = [layer for layer in model.decoder.modules() if isinstance(layer, torch.nn.Linear)]
    linear.weight.data.copy_(w)
    linear.bias.data.copy_(b)
    covariance = torch.linalg.inv(torch.eye(4) + w.T @ w / v)
    posterior = MultivariateNormal((x.flatten(1) - b) @ w @ covariance / v, covariance)
    torch.manual_seed(0)
    z = posterior.sample((30,))
    with torch.no_grad():
        draw = model.draw(x, z=z.float())
        log_px = draw.log_px.double() + draw.log_pz.double() - posterior.log_prob(z)
        torch.testing.assert_close(log_px, truth.log_prob(x).expand(30, 50), rtol=0, atol=2e-4)
        assert (model.draw(x, num_samples=1000).elbo < truth.log_prob(x)).all()
