"""Wake-sleep and Monte Carlo EM: who learns from what, and where the latents come from."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.linear import Affine, Flat, exact, make
from helpers.quadrature import assert_moments
from zuko.flows import MAF

from vae_exp import likelihoods
from vae_exp.models import VAE
from vae_exp.objectives import ELBO, MCEM, WakeSleep
from vae_exp.posteriors import FullNormal
from vae_exp.priors import Mixture, Vamp

N, LATENTS = 4, 2
OF_Q = ("encoder", "posterior")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_linear(objective):
    return make(Flat(N, N), Affine(LATENTS, N), objective, posterior=FullNormal(N, LATENTS))


def make_learned(prior):
    """A model whose prior and likelihood have parameters, too."""
    likelihood = likelihoods.GaussianShared(0.5)
    return VAE(Flat(N, N), Affine(LATENTS, N), FullNormal(N, LATENTS), prior, likelihood, ELBO()).double()


PRIORS = {"mixture": partial(Mixture, LATENTS, 3), "flow": partial(MAF, LATENTS, transforms=2, hidden_features=[8])}
learned = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def spy(model):
    """Keeps the draws that an objective asks for."""
    draws, draw = [], model.draw

    def spied(*args, **kwargs):
        draws.append(draw(*args, **kwargs))
        return draws[-1]

    model.draw = spied
    return draws


def gradients(model, loss):
    """By name; None where the loss does not reach."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True), strict=True))


@learned
def test_the_wake_term_trains_p_alone_and_the_sleep_term_q_alone(prior):
    model, x = make_learned(prior()), torch.randn(6, 1, 1, N).double()
    draws = spy(model)
    loss, shown = WakeSleep(3)(model, x, None, model.step)
    wake, sleep = draws
    assert shown is wake
    terms = -(wake.log_px + wake.log_pz).mean(), -sleep.log_qz.mean()
    torch.testing.assert_close(loss, sum(terms))
    of_wake, of_sleep, of_both = (gradients(model, term) for term in (*terms, loss))
    for name in of_both:
        own, other = (of_sleep, of_wake) if name.startswith(OF_Q) else (of_wake, of_sleep)
        assert other[name] is None
        torch.testing.assert_close(of_both[name], own[name])
    # By hand: latents and dreams as constants
    z = wake.z.detach()
    by_hand = gradients(model, -model.draw(x, z=z).log_joint(z).mean())
    dreamt = gradients(model, -model.encode(sleep.x).log_prob(sleep.z.detach()).mean())
    for name in of_both:
        torch.testing.assert_close(of_both[name], (dreamt if name.startswith(OF_Q) else by_hand)[name])


@learned
def test_monte_carlo_em_trains_both_at_where_the_chains_end(prior):
    model, x = make_learned(prior()), torch.randn(6, 1, 1, N).double()
    draws = spy(model)
    loss, shown = MCEM(3, transitions=2, leapfrog=3)(model, x, None, model.step)
    start, end = draws
    assert shown is start
    assert not torch.equal(start.z, end.z)
    assert not end.z.requires_grad
    again = model.draw(x, z=end.z)
    by_hand = gradients(model, -(again.log_joint(end.z) + again.log_qz).mean())
    torch.testing.assert_close(gradients(model, loss), by_hand)


@pytest.mark.parametrize("objective", [WakeSleep(), MCEM()])
def test_a_prior_made_of_posteriors_is_refused(objective):
    """In the wake phase it would train the encoder."""
    model, x = make_learned(Vamp((1, 1, N), pseudo_inputs=3)), torch.rand(6, 1, 1, N).double()
    reached = gradients(model, -model.draw(x, stop=("z", "q")).log_pz.mean())
    assert all(reached[name] is not None for name in reached if name.startswith(OF_Q))
    with pytest.raises(ValueError, match=r"trains the prior apart from the encoder, and Vamp is made\n"):
        objective(model, x, None, model.step)


def test_dreams_come_from_prior_and_decoder():
    """`z ~ N(0, I)`, `x = W z + b + scale * noise`: the moments of both together."""
    num, scale = 40_000, 0.5
    model = make_linear(WakeSleep())
    draws = spy(model)
    model.objective(model, 5 + torch.randn(num, 1, 1, N).double(), None, model.step)
    x, z = draws[1].x, draws[1].z
    assert x.shape == (num, 1, 1, N)
    assert z.shape == (1, num, LATENTS)
    w, b = model.decoder.weight.detach(), model.decoder.bias.detach()
    mean = torch.cat([torch.zeros(LATENTS), b]).numpy()
    cov = torch.cat([torch.cat([torch.eye(LATENTS), w.T], 1), torch.cat([w, w @ w.T + scale**2 * torch.eye(N)], 1)])
    assert_moments(torch.cat([z[0], x.flatten(1)], dim=1), mean, cov.numpy())


def test_dreams_come_from_a_prior_that_is_learned():
    num = 40_000
    model = make_learned(Mixture(LATENTS, 3))
    model.prior.logits.data = torch.randn(3).double()
    draws = spy(model)
    WakeSleep()(model, torch.randn(num, 1, 1, N).double(), None, model.step)
    weights = model.prior.logits.detach().softmax(0).numpy()
    means, scales = (t.detach().numpy() for t in (model.prior.mu, 0.01 + model.prior.raw_scale.exp()))
    mean = weights @ means
    cov = np.diag(weights @ scales**2) + (means - mean).T @ (weights[:, None] * (means - mean))
    assert_moments(draws[1].z[0], mean, cov)


def test_latents_of_monte_carlo_em_are_the_true_posteriors():
    """From an untrained encoder's latents."""
    chains, images = 4000, 3
    model, x = make_linear(MCEM(chains, transitions=30, leapfrog=4, step_size=0.25)), torch.randn(images, 1, 1, N)
    draws = spy(model)
    _, shown = model.objective(model, x.double(), None, model.step)
    _, true = exact(model, x.double())
    assert shown.extras["hmc_acceptance"].shape == (images,)
    assert ((shown.extras["hmc_acceptance"] > 0.6) & (shown.extras["hmc_acceptance"] <= 1)).all()
    for i in range(images):
        cov = true.covariance_matrix[i].numpy()
        assert_moments(draws[1].z[:, i], true.mean[i].numpy(), cov)
        with pytest.raises(AssertionError):
            assert_moments(draws[0].z[:, i], true.mean[i].numpy(), cov)


def test_in_evaluation_monte_carlo_em_is_the_elbo():
    model, x = make_linear(MCEM(5)), torch.randn(3, 1, 1, N).double()
    with torch.no_grad():
        torch.manual_seed(1)
        loss, draw = model.objective(model, x, None, model.step)
        torch.manual_seed(1)
        expected, _ = ELBO(5)(model, x, None, model.step)
    torch.testing.assert_close(loss, expected)
    assert "hmc_acceptance" not in draw.terms
