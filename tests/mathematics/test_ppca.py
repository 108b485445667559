"""Encoder and decoder trained together find the maximum likelihood of probabilistic PCA, by whatever objective."""

import math
from functools import partial

import pytest
import torch
from helpers.linear import Affine, Flat, exact, exact_terms, make

from vae_exp.objectives import CIWAE, ELBO, IWAE, MCEM, MIWAE, PIWAE, WakeSleep
from vae_exp.posteriors import FullNormal
from vae_exp.schedules import Exponential

N, LATENTS, SCALE, IMAGES, STEPS = 5, 2, 0.5, 300, 1000

OBJECTIVES = {
    "elbo": ELBO(),
    "elbo-monte_carlo": ELBO(4, kl="monte_carlo"),
    "elbo-stl": ELBO(4, kl="monte_carlo", estimator="stl"),
    "elbo-score_function": ELBO(4, kl="monte_carlo", estimator="score_function", baseline=True),
    "iwae": IWAE(4),
    "iwae-dreg": IWAE(4, "dreg"),
    "miwae": MIWAE(2, 3),
    "miwae-dreg": MIWAE(2, 3, "dreg"),
    "ciwae": CIWAE(4, 0.3),
    "ciwae-dreg": CIWAE(4, 0.3, "dreg"),
    "piwae": PIWAE(2, 3),
    "wake_sleep": WakeSleep(),
    # A path of about a quarter of the posterior's period (its standard deviation is 0.23): half of it mirrors z.
    "mcem": MCEM(transitions=2, leapfrog=4, step_size=0.1),
}


def images():
    """A fixed training set, whose covariance has two directions of signal."""
    z, w = torch.randn(IMAGES, LATENTS), torch.randn(N, LATENTS)
    x = z @ w.T + torch.randn(N) + SCALE * torch.randn(IMAGES, N)
    return x[:, None, None].double()


def maximum_likelihood(x):
    """Mean `log p(x)` under `N(mean, W W^T + s^2 I)` with `W = U (Lambda - s^2 I)^(1/2)` (Tipping & Bishop, 1999)."""
    x = x.flatten(1)
    cov = x.T.cov(correction=0)
    values, vectors = torch.linalg.eigh(cov)
    assert values[-LATENTS] > SCALE**2
    w = vectors[:, -LATENTS:] * (values[-LATENTS:] - SCALE**2).sqrt()
    fitted = w @ w.T + SCALE**2 * torch.eye(N)
    trace = torch.linalg.solve(fitted, cov).trace()
    return -0.5 * (N * math.log(2 * math.pi) + torch.logdet(fitted) + trace), w


@torch.no_grad()
def exact_elbo(model, x):
    recon, kl = exact_terms(model, x)
    return -(recon + kl).mean()


def train(model, x, steps):
    """Full batches, by the optimizer and the schedule that the model makes."""
    made = model.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for step in range(steps):
        model.step.fill_(step)
        optimizer.zero_grad()
        model.objective(model, x, None, model.step)[0].backward()
        optimizer.step()
        scheduler.step()


def make_random(objective, steps):
    """Encoder and decoder as they are before training."""
    model = make(Flat(N, N), Affine(LATENTS, N), objective, SCALE, FullNormal(N, LATENTS))
    model.optimizer = partial(torch.optim.Adam, lr=Exponential(0.05, 0.0005, steps))
    return model


def test_the_closed_forms_agree():
    """No ELBO is above the maximum, and it is reached by its W, the mean, and the posterior of both."""
    torch.manual_seed(0)
    x = images()
    best, w = maximum_likelihood(x)
    model = make_random(ELBO(), 1).requires_grad_(False)
    model.decoder.weight.copy_(w)
    model.decoder.bias.copy_(x.mean(0).flatten())
    log_px, true = exact(model, x)
    torch.testing.assert_close(log_px.mean(), best)
    for part in (model.encoder, model.posterior.mu, model.posterior.logvar, model.posterior.below):
        part.weight.zero_()
        part.bias.zero_()
    # z = M^-1 W^T (x - mean), by the identity and one linear map
    model.encoder.weight.copy_(torch.eye(N))
    model.encoder.bias.copy_(-model.decoder.bias)
    model.posterior.mu.weight.copy_(true.covariance_matrix[0] @ w.T / SCALE**2)
    factor = true.scale_tril[0]
    model.posterior.logvar.bias.copy_(2 * factor.diagonal().log())
    model.posterior.below.bias.fill_(factor[1, 0])
    torch.testing.assert_close(exact_elbo(model, x), best)
    for _ in range(20):
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
        assert exact_elbo(model, x) < best


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_training_finds_the_maximum_likelihood(objective):
    torch.manual_seed(0)
    x = images()
    best, _ = maximum_likelihood(x)
    model = make_random(objective, STEPS)
    before = exact_elbo(model, x)
    assert best - before > 1
    train(model, x, STEPS)
    gap = best - exact_elbo(model, x)
    assert -1e-9 < gap < 0.05
