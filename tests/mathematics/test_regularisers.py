"""Weighted and regularised objectives: the loss by hand, and that each lowers what it names, measured otherwise."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from torch import Tensor

from vae_exp import decoders, encoders, likelihoods
from vae_exp.models import VAE
from vae_exp.objectives import DIP, ELBO, MMD, BetaTCVAE, Capacity, FreeBits, Recon
from vae_exp.posteriors import DiagonalNormal, FullNormal
from vae_exp.priors import StandardNormal
from vae_exp.schedules import Linear

D, B, N = 6, 7, 1000
IMAGE = (1, 8, 8)


def make(objective, posterior=DiagonalNormal, likelihood=None):
    torch.manual_seed(0)
    return VAE(
        encoders.MLP(IMAGE, hidden=[64], out_features=64), decoders.MLP(D, IMAGE, hidden=[64]),
        posterior(64, D), StandardNormal(D), likelihood or likelihoods.Bernoulli(), objective,
    )  # fmt: skip


def digits() -> Tensor:
    return torch.from_numpy(load_digits().images[:N] > 7).float()[:, None]


def by_hand(model, x):
    """recon `(B,)` at the latents of the draw, and the KL of each dimension `(B, D)`, in numpy."""

    def numbers(objective, step=0):
        model.objective = objective
        torch.manual_seed(1)
        loss, draw = objective(model, x, None, torch.tensor(step))
        logits, bits = model.decoder(draw.z.flatten(0, 1)).detach().double().numpy(), x.numpy()
        recon = (np.logaddexp(0, logits) - logits * bits).sum((1, 2, 3))
        mu, sigma = (t.detach().double().numpy() for t in (draw.q.mean, draw.q.stddev))
        return loss.item(), recon, 0.5 * (mu**2 + sigma**2 - 1) - np.log(sigma)

    return numbers


@pytest.fixture
def numbers():
    model = make(ELBO())
    model.posterior.mu.bias.data = torch.linspace(0, 1.5, D)  # dimensions of little and of much KL
    return by_hand(model, digits()[:B])


# --- Losses by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0.0, 1.0, 25.0])
def test_capacity_by_hand(numbers, capacity):
    loss, recon, kl = numbers(Capacity(30.0, capacity))
    assert kl.sum(1).mean() > 1.5
    assert loss == pytest.approx(recon.mean() + 30 * abs(kl.sum(1).mean() - capacity), rel=1e-6)


@pytest.mark.parametrize(("step", "capacity"), [(0, 0.0), (250, 5.0), (1000, 20.0), (5000, 20.0)])
def test_the_capacity_may_grow(numbers, step, capacity):
    loss, recon, kl = numbers(Capacity(Linear(10.0, 30.0, 1000), Linear(0.0, 20.0, 1000)), step)
    gamma = 10 + min(step, 1000) / 50
    assert loss == pytest.approx(recon.mean() + gamma * abs(kl.sum(1).mean() - capacity), rel=1e-6)


@pytest.mark.parametrize("free", [0.0, 0.2, 100.0])
def test_free_bits_by_hand(numbers, free):
    """The KL of a dimension is averaged over the batch before it is held against the free nats."""
    loss, recon, kl = numbers(FreeBits(free))
    assert loss == pytest.approx(recon.mean() + np.maximum(kl.mean(0), free).sum(), rel=1e-6)
    if free == 0.2:
        assert 0 < (kl.mean(0) < free).sum() < D
        assert abs(np.maximum(kl, free).sum(1).mean() - np.maximum(kl.mean(0), free).sum()) > 1e-3


def test_free_bits_may_follow_a_schedule(numbers):
    loss, recon, kl = numbers(FreeBits(Linear(0.4, 0.0, 100)), 75)
    assert loss == pytest.approx(recon.mean() + np.maximum(kl.mean(0), 0.1).sum(), rel=1e-6)


def test_a_dimension_below_its_free_nats_feels_no_kl():
    """The gradient of the loss is that of recon there, and of recon and kl above."""
    model, x = make(ELBO()), digits()[:B]
    model.posterior.mu.bias.data = torch.linspace(0, 1.5, D)
    gradients = {}
    for name, objective in {"free": FreeBits(0.1), "recon": Recon(), "elbo": ELBO()}.items():
        model.zero_grad()
        torch.manual_seed(1)
        loss, draw = objective(model, x, None, model.step)
        loss.backward()
        gradients[name] = model.posterior.mu.weight.grad.clone()
    below = draw.kl_per_dim.mean(0) < 0.1
    assert 0 < below.sum() < D
    torch.testing.assert_close(gradients["free"][below], gradients["recon"][below], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients["free"][~below], gradients["elbo"][~below], rtol=1e-5, atol=1e-6)


def test_recon_by_hand(numbers):
    loss, recon, _ = numbers(Recon())
    assert loss == pytest.approx(recon.mean(), rel=1e-6)


def test_free_bits_needs_the_kl_of_each_dimension():
    model = make(FreeBits(0.1), FullNormal)
    with pytest.raises(ValueError, match="objective=free_bits needs the KL of each dimension"):
        model.objective(model, digits()[:B], None, model.step)


@pytest.mark.parametrize(
    ("named", "made"),
    [
        (r"objective\.gamma=-1", lambda: Capacity(-1.0, 1.0)),
        (r"objective\.capacity=-1", lambda: Capacity(1.0, -1.0)),
        (r"objective\.free=-1", lambda: FreeBits(-1.0)),
        (r"objective\.num_samples=0", lambda: Recon(0)),
    ],
)
def test_what_they_do_not_take_is_named(named, made):
    with pytest.raises(ValueError, match=named):
        made()


# --- Each lowers what it names, against the ELBO on the same seed -------------------------------------------------

slow = pytest.mark.slow  # twenty seconds of training in all
OBJECTIVES = {
    "elbo": ELBO(),
    "beta_tcvae_mws": BetaTCVAE(6.0, N),
    "beta_tcvae_mss": BetaTCVAE(6.0, N, estimator="mss"),
    "dip_1": DIP(1, 10.0, 0.0),
    "dip_2": DIP(2, 10.0, 10.0),
    "mmd": MMD(0.0, 50.0),
    "wae": MMD(1.0, 10.0),
    "recon": Recon(),
    "capacity": Capacity(30.0, Linear(0.0, 20.0, 300)),
    "free_bits": FreeBits(3.0),
}


@cache
def trained(name):
    """The posteriors of all training images after 400 steps: means and scales `(N, D)`, in double precision."""
    model = make(OBJECTIVES[name], likelihood=likelihoods.Normal(0.1))
    x = torch.from_numpy(load_digits().images[:N] / 16).float()[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for step in range(400):
        batch = x[torch.randperm(N, generator=generator)[:100]]
        loss, _ = model.objective(model, batch, None, torch.tensor(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        q = model.encode(x)
    return q.mean.double().numpy(), q.stddev.double().numpy()


def kl_per_dim(name):
    mu, sigma = trained(name)
    return (0.5 * (mu**2 + sigma**2 - 1) - np.log(sigma)).mean(0)


def samples_of_aggregate(name, size, seed=0):
    mu, sigma = trained(name)
    rng = np.random.default_rng(seed)
    rows = rng.integers(N, size=size)
    return mu[rows] + sigma[rows] * rng.standard_normal((size, D))


def total_correlation(name):
    """And its standard error: of q(z) = 1/N sum_n q(z | x_n), by the sum over all n at a thousand of its samples."""
    mu, sigma = trained(name)
    z = samples_of_aggregate(name, 1000)[:, None]
    log_q = -0.5 * ((z - mu) / sigma) ** 2 - np.log(sigma)  # (S, N, D); constants cancel, log N does not
    ratio = logsumexp(log_q.sum(-1), axis=1) - logsumexp(log_q, axis=1).sum(-1) + (D - 1) * np.log(N)
    return ratio.mean(), ratio.std() / len(ratio) ** 0.5


def energy_distance(name):
    """Between q(z) and N(0, I): 2 E|a - b| - E|a - a'| - E|b - b'| over all pairs of samples, the mean of ten."""
    size, terms = 1000, []
    for seed in range(1, 11):
        a, b = samples_of_aggregate(name, size, seed), np.random.default_rng(100 + seed).standard_normal((size, D))
        within = (cdist(a, a).sum() + cdist(b, b).sum()) / (size * (size - 1))
        terms.append(2 * cdist(a, b).mean() - within)
    return np.mean(terms), np.std(terms, ddof=1) / len(terms) ** 0.5


def off_diagonal(cov):
    return (cov**2).sum() - (np.diag(cov) ** 2).sum()


@slow
@pytest.mark.parametrize("name", ["beta_tcvae_mws", "beta_tcvae_mss"])
def test_beta_tcvae_lowers_the_total_correlation_of_the_aggregate_posterior(name):
    (plain, error), (lower, its_error) = total_correlation("elbo"), total_correlation(name)
    assert plain > 10 * error
    assert lower + 4 * its_error < 0.5 * (plain - 4 * error)


@slow
def test_dip_1_lowers_the_correlations_of_the_means():
    plain, lower = (off_diagonal(np.cov(trained(name)[0].T, bias=True)) for name in ("elbo", "dip_1"))
    assert lower < 0.1 * plain


@slow
def test_dip_2_brings_the_covariance_of_the_aggregate_posterior_to_the_identity():
    distances = []
    for name in ("elbo", "dip_2"):
        cov = np.cov(samples_of_aggregate(name, 200_000).T)  # of samples, not of the moments that dip reads
        distances.append((off_diagonal(cov), ((np.diag(cov) - 1) ** 2).sum()))
    assert distances[1][0] < 0.5 * distances[0][0]
    assert distances[1][1] < 0.5 * distances[0][1]


@slow
@pytest.mark.parametrize(("name", "than"), [("mmd", "elbo"), ("wae", "recon")])
def test_mmd_brings_the_aggregate_posterior_to_the_prior_by_another_kernel(name, than):
    (plain, error), (lower, its_error) = energy_distance(than), energy_distance(name)
    assert plain > 4 * error
    assert lower + 4 * its_error < 0.2 * (plain - 4 * error)


@slow
def test_capacity_brings_the_kl_to_it():
    assert abs(kl_per_dim("elbo").sum() - 20) > 4
    assert kl_per_dim("capacity").sum() == pytest.approx(20, abs=0.7)


@slow
def test_free_bits_leaves_no_dimension_below_its_free_nats():
    assert (kl_per_dim("elbo") < 2.7).all()
    assert (kl_per_dim("free_bits") > 2.8).all()
