"""Counts: size factors against enumeration, means and variances against SciPy, precision where rates are large."""

from itertools import product

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, composed
from scipy import stats

from vae_exp.config import ConfigError
from vae_exp.likelihoods import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vae_exp.runs.build import bound, build

COUNTS = ("data.levels=count", "data.binarize=none")


def params_of(likelihood, width, seed=0):
    return torch.randn(likelihood.params_per_pixel, 1, width, generator=torch.Generator().manual_seed(seed))


def rows_with(total, width):
    rows = [row for row in product(range(total + 1), repeat=width) if sum(row) == total]
    return torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, width)


def test_the_rates_of_a_poisson_of_the_total_are_those_of_a_multinomial():
    total, params = 6, params_of(Poisson(), 3)
    x = rows_with(total, 3)
    log_p = Poisson(size_factor="total")(params).log_prob(x).double()
    shares = params.flatten().double().softmax(0).numpy()
    # Poisson counts with the rates N p_i are a multinomial, times the mass of the sum N under a Poisson of rate N.
    expected = stats.multinomial.logpmf(x.flatten(1).numpy(), total, shares) + stats.poisson.logpmf(total, total)
    np.testing.assert_allclose(log_p, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial])
@pytest.mark.parametrize("total", [1, 5])
def test_the_masses_of_all_images_of_one_total_add_up_to_less_than_one(kind, total):
    likelihood = kind(size_factor="total")
    sum_of_masses = likelihood(params_of(likelihood, 3)).log_prob(rows_with(total, 3)).double().exp().sum()
    assert 0 < sum_of_masses < 1  # so that the ELBO is a bound of log p(x | total)


@pytest.mark.parametrize("size", ["none", "total"])
@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial])
def test_samples_have_the_mean_and_variance_that_are_stated(kind, size):
    torch.manual_seed(0)
    likelihood = kind(size_factor=size)
    likelihood.start_from([(torch.full((2, 1, 1, 4), 3.0), torch.zeros(2))])
    assert likelihood.mean_count == 3
    px = likelihood(params_of(likelihood, 4)).base_dist
    draws = px.sample((100_000,)).double()
    error = (px.variance / len(draws)).sqrt()
    assert ((draws.mean(0) - px.mean).abs() < 4.5 * error).all()
    torch.testing.assert_close(draws.var(0).float(), px.variance, rtol=0.1, atol=0)


def test_large_concentrations_lose_no_digits():
    from vae_exp.likelihoods.counts import GammaPoisson

    x, k = torch.tensor([0.0, 1, 7, 100, 5000]), torch.tensor([0.01, 1, 7.9, 8.1, 300, 1e4])[:, None]
    mean = torch.tensor(90.0)
    ours = GammaPoisson(mean.log().expand(6, 1), k).log_prob(x)
    theirs = stats.nbinom.logpmf(x.numpy(), k.double().numpy(), k.double().numpy() / (k.double().numpy() + 90))
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=4e-4)  # a difference of two lgamma is off by 8e-3


@pytest.mark.slow
def test_counts_are_scored_by_a_likelihood_of_counts_alone():
    model, data = build(composed(*SMALL, *COUNTS, "likelihood=poisson"))
    assert bound(model, data)["representation"] == "counts"
    assert bound(model, data)["kind"] == "mass"
    x = torch.full((2, *data.image_shape), 9.0)
    torch.testing.assert_close(model.encoder.transform(x), x.add(1).log())
    with pytest.raises(ConfigError, match=r"the data are counts\.\nWays out: likelihood=negative_binomial"):
        build(composed(*SMALL, *COUNTS, "likelihood=bce"))
    model, data = build(
        composed(
            *SMALL,
            "data.levels=count",
            "data.binarize=none",
            "likelihood=negative_binomial",
            "likelihood.size_factor=total",
        )
    )
    assert bound(model, data)["of"] == "log p(x|total)"
