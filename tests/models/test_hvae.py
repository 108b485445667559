"""Several stochastic layers: chains by hand, by quadrature, and a linear-Gaussian one whose log p(x) is known."""

from math import log, sqrt

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers.linear import Affine, Flat
from helpers.quadrature import assert_moments
from helpers.runs import PICTURED, SMALL, composed, pictures
from scipy import stats
from torch import nn

from vae_exp import decoders, encoders, likelihoods
from vae_exp.chains import BottomUp, TopDown
from vae_exp.config import ConfigError
from vae_exp.models import HVAE
from vae_exp.objectives import ELBO, IWAE
from vae_exp.runs.build import build
from vae_exp.runs.dry_run import check_shapes

B, K, FEATURES = 4, 3, 5
IMAGE = (1, 4, 4)
layers = pytest.mark.parametrize("sizes", [[3, 2], [3, 2, 4]], ids=["two", "three"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(sizes, objective=None, hidden=(6,)):
    return HVAE(
        encoders.MLP(IMAGE, hidden=[7], out_features=FEATURES, activation="Tanh"),
        decoders.MLP(sizes[0], IMAGE, hidden=[7], activation="Tanh"),
        BottomUp(FEATURES, sizes[0], sizes[1:], hidden), TopDown(sizes[0], sizes[1:], hidden),
        likelihoods.Bernoulli(), objective or ELBO(), latent_dim=sizes[0], upper_dims=sizes[1:],
    )  # fmt: skip


def rescaled(part):
    """Weights large enough that each layer hangs on the one before."""
    for name, parameter in part.named_parameters():
        nn.init.normal_(parameter, std=0.3 if "logvar" in name else 0.8)
    return part.requires_grad_(False)


def heads(normal, h):
    """Mean and standard deviation of a diagonal normal at features, by its weights."""
    mu, logvar = (h @ head.weight.numpy().T + head.bias.numpy() for head in (normal.mu, normal.logvar))
    return mu, np.exp(0.5 * logvar)


def link(part, level, v):
    """Mean and standard deviation of the layer after v: tanh layers and two heads."""
    *hidden, normal = part.links[level]
    for layer in hidden:
        v = np.tanh(v) if isinstance(layer, nn.Tanh) else v @ layer.weight.numpy().T + layer.bias.numpy()
    return heads(normal, v)


def log_normal(v, moments):
    return stats.norm.logpdf(v, *moments).sum(-1)


def by_hand(posterior, prior, h, z, sizes):
    """log q(z | h) and log p(z)."""
    z = np.split(z, np.cumsum(sizes)[:-1], axis=-1)
    log_q = log_normal(z[0], heads(posterior.first, h))
    log_p = log_normal(z[-1], (0, 1))
    for level in range(len(sizes) - 1):
        log_q = log_q + log_normal(z[level + 1], link(posterior, level, z[level]))
        log_p = log_p + log_normal(z[level], link(prior, len(sizes) - 2 - level, z[level + 1]))
    return log_q, log_p


@layers
def test_log_prob_is_the_sum_of_normals(sizes):
    posterior = rescaled(BottomUp(FEATURES, sizes[0], sizes[1:], [6]))
    prior = rescaled(TopDown(sizes[0], sizes[1:], [6]))
    h, z = torch.randn(B, FEATURES), torch.randn(K, B, sum(sizes))
    log_q, log_p = by_hand(posterior, prior, h.numpy(), z.numpy(), sizes)
    np.testing.assert_allclose(posterior(h).log_prob(z), log_q, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(prior().log_prob(z), log_p, rtol=1e-5, atol=1e-4)
    assert posterior(h).batch_shape == (B,)
    assert prior().batch_shape == ()
    assert posterior(h).event_shape == prior().event_shape == (sum(sizes),)


@pytest.mark.parametrize("upper", [[1], [1, 1]], ids=["two", "three"])
@pytest.mark.parametrize("part", ["posterior", "prior"])
def test_samples_have_the_moments_of_the_density(part, upper):
    """By sums over a grid of all layers, of densities that are held to scipy's above."""
    chain = rescaled(BottomUp(FEATURES, 1, upper, [4]) if part == "posterior" else TopDown(1, upper, [4]))
    p = chain(torch.zeros(1, FEATURES)) if part == "posterior" else chain()
    line = torch.linspace(-11, 11, 111)
    grid = torch.cartesian_prod(*[line] * (1 + len(upper)))
    weight = (p.log_prob(grid[:, None] if part == "posterior" else grid).flatten().double()).exp()
    weight = weight.numpy() * float(line[1] - line[0]) ** (1 + len(upper))
    assert weight.sum() == pytest.approx(1, abs=1e-3)
    z = grid.double().numpy()
    mean = weight @ z
    cov = (weight[:, None] * (z - mean)).T @ (z - mean)
    assert np.abs(cov - np.diag(np.diag(cov))).max() > 0.05  # the layers do hang on each other
    samples = p.sample((40_000,)).flatten(1) if part == "prior" else p.sample((40_000,))[:, 0]
    assert_moments(samples, mean, cov)


@layers
@pytest.mark.parametrize("k", [1, K])
def test_the_elbo_is_the_mean_over_latents_of_all_layers(sizes, k):
    model = make(sizes, ELBO(k))
    rescaled(model.posterior), rescaled(model.prior)
    x = torch.rand(B, *IMAGE).round()
    with torch.no_grad():
        loss, draw = model.objective(model, x, None, model.step)
        h, logits = model.encoder(x), model.decoder(draw.z[..., : sizes[0]].flatten(0, 1))
    log_q, log_p = by_hand(model.posterior, model.prior, h.numpy(), draw.z.numpy(), sizes)
    logits, bits = logits.double().view(k, B, -1).numpy(), x.flatten(1).numpy()
    log_px = (logits * bits - np.logaddexp(0, logits)).sum(-1)
    np.testing.assert_allclose(draw.elbo, (log_px + log_p - log_q).mean(0), rtol=1e-5, atol=1e-4)
    assert loss.item() == pytest.approx(-(log_px + log_p - log_q).mean(), rel=1e-5)
    assert draw.kl_per_dim is None


@layers
@pytest.mark.parametrize("objective", [ELBO(K), IWAE(K), IWAE(K, "dreg")])
def test_gradients_reach_every_parameter(sizes, objective):
    model = make(sizes, objective)
    model.objective(model, torch.rand(16, *IMAGE).round(), None, model.step)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.all()] == []


# --- A linear-Gaussian chain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[2, 1], [2, 1, 2]], ids=["two", "three"])
@torch.no_grad()
def test_iwae_approaches_log_px_of_a_linear_chain(sizes):
    """x = W z_1 + b + e, z_l = A_l z_{l+1} + a_l + e_l: x is normal, and its covariance is a product of maps."""
    n, noise, samples = 3, 1.0, 100_000
    model = HVAE(
        Flat(n, n), Affine(sizes[0], n), BottomUp(n, sizes[0], sizes[1:], hidden=[]),
        TopDown(sizes[0], sizes[1:], hidden=[]), likelihoods.Normal(noise), ELBO(),
        latent_dim=sizes[0], upper_dims=sizes[1:],
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.4)
        if "logvar" in name:
            parameter.zero_()
            if "bias" in name:  # q is wide, so that the weights have a variance
                parameter += log(1.5) if "posterior" in name else torch.linspace(-1, 0, len(parameter))
    mean, cov = np.zeros(sizes[-1]), np.eye(sizes[-1])
    for normal in [each[-1] for each in model.prior.links]:
        a, bias = normal.mu.weight.double().numpy(), normal.mu.bias.double().numpy()
        mean, cov = a @ mean + bias, a @ cov @ a.T + np.diag(np.exp(normal.logvar.bias.double().numpy()))
    w, b = model.decoder.weight.double().numpy(), model.decoder.bias.double().numpy()
    marginal = stats.multivariate_normal(w @ mean + b, w @ cov @ w.T + noise**2 * np.eye(n))
    x = torch.randn(2, 1, 1, n)
    expected = marginal.logpdf(x.flatten(1).numpy())
    draw = model.draw(x, num_samples=samples)
    error = (draw.log_w - draw.iwae).exp().double().std(0) / sqrt(samples)  # relative, of the mean weight
    assert (error < 0.02).all()
    assert ((draw.iwae.double() - torch.from_numpy(expected)).abs() < 4 * error).all()
    assert (draw.elbo.double() < torch.from_numpy(expected) - 0.1).all()
    model_samples = model.decode(model.prior().sample((40_000, 1)), None).sample().flatten(1)
    assert_moments(model_samples, marginal.mean, marginal.cov)


# --- Of one layer -------------------------------------------------------------------------------------------------


def test_of_one_layer_it_is_a_vae():
    """The same weights from the same seed, and the same terms."""
    models = []
    for chosen in (("model=vae",), ("model=hvae", "model.upper_dims=[]")):
        pl.seed_everything(0, verbose=False)
        models.append(build(composed(*SMALL, *chosen))[0])
    vae, hvae = models
    state = {name.replace("posterior.first.", "posterior."): value for name, value in hvae.state_dict().items()}
    assert state.keys() == vae.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in vae.state_dict().items())
    x, draws = torch.rand(5, 1, 8, 8), []
    for model in models:
        torch.manual_seed(1)
        draws.append(model.draw(x, num_samples=K))
    for term in ("z", "log_px", "log_pz", "log_qz", "kl_per_dim", "elbo"):
        assert torch.equal(getattr(draws[0], term), getattr(draws[1], term))


def test_a_run_of_one_layer_is_that_of_a_vae(run):
    one, other = run(folder="vae")[1], run("model=hvae", "model.upper_dims=[]", folder="hvae")[1]
    del one["train/images_per_second"], other["train/images_per_second"]
    assert one == other


def test_a_run_of_two_layers_samples_and_bounds(run):
    folder, metrics = run("model=hvae", "model.upper_dims=[2]", small=PICTURED)
    assert pictures(folder) >= {"samples", "reconstructions"}
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"], rel=1e-6)


def test_widths_that_differ_are_named():
    with pytest.raises(ConfigError, match=r"prior gives shape \(8,\), but needed is the posterior's event \(5,\)"):
        build(composed(*SMALL, "model=hvae", "model.upper_dims=[2]", "prior.upper_dims=[5]"))
    with pytest.raises(ValueError, match=r"prior\.activation=Relu"):
        TopDown(2, [1], activation="Relu")
    check_shapes(make([3, 2]), IMAGE)
