"""Gradient estimators against exact gradients, and their variances, replicate by replicate."""

from copy import deepcopy
from functools import partial
from itertools import product
from math import sqrt

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.linear import Affine, Flat, Given, GivenEach, exact_terms, make, make_at
from torch import nn
from zuko.flows import MAF

from vae_exp import corruptions, likelihoods
from vae_exp.chains import BottomUp, TopDown
from vae_exp.models import HVAE, VAE
from vae_exp.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, BetaELBO
from vae_exp.posteriors import Bernoulli, Flow, FullNormal
from vae_exp.priors import Bernoulli as Coins
from vae_exp.priors import Mixture, StandardNormal

N, LATENTS, K = 4, 2, 2
REPLICATES = 20_000
BETA = 3.0
# Shift from the true posterior in its standard deviations, and scales relative to its own.
POINTS = {"wide": ((1.0, 1.0), (1.5, 1.5)), "mixed": ((-0.7, 0.5), (0.7, 1.2))}

points = pytest.mark.parametrize("point", POINTS)
MONTE_CARLO = {
    "pathwise": {"estimator": "pathwise"},
    "stl": {"estimator": "stl"},
    "score_function": {"estimator": "score_function"},
    "baseline": {"estimator": "score_function", "baseline": True},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def replicates(model, x, objective, num=REPLICATES):
    """Gradients of the loss for the features `(num, F)` and for W and b `(num, N, D + 1)`, one for each latent set."""
    model = make(Given(model.encoder.h.detach().repeat(num, 1)), GivenEach(model.decoder, num), objective)
    torch.manual_seed(1)
    loss, _ = objective(model, x.expand(num, -1, -1, -1), None, model.step)
    (num * loss).backward()  # the loss is a mean over images
    return model.encoder.h.grad, torch.cat([model.decoder.weight.grad, model.decoder.bias.grad[..., None]], dim=-1)


def gradients(model, loss):
    """The same of a loss without noise."""
    h, w, b = torch.autograd.grad(loss, (model.encoder.h, model.decoder.weight, model.decoder.bias))
    return h[0], torch.cat([w, b[:, None]], dim=-1)


def exact_elbo_gradients(model, x, beta=1.0):
    recon, kl = exact_terms(model, x)
    return gradients(model, (recon + beta * kl).sum())


def exact_iwae_gradients(model, x, nodes=16):
    """Of `-E log (w_1 + w_2) / 2`, by Gauss-Hermite quadrature over the noise of both latents, nodes^4 points."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    noise = torch.tensor(list(product(points, repeat=K * LATENTS))).view(-1, K, LATENTS).movedim(1, 0)
    weights = torch.tensor(list(product(weights / weights.sum(), repeat=K * LATENTS))).prod(-1)
    q = model.encode(x)
    z = q.mean + noise @ q.scale_tril[0].T
    return gradients(model, -(weights * model.draw(x.expand(len(weights), -1, -1, -1), z=z).iwae).sum())


def off(samples, expected):
    """How far the mean of replicates lies from what is expected, at most, in standard errors."""
    error = samples.std(0) / sqrt(len(samples))
    return ((samples.mean(0) - expected) / error).abs().max()


def spread(samples):
    """The variance of a gradient, summed over its entries."""
    return samples.var(0).sum().item()


# --- The ELBO ---------------------------------------------------------------------------------------------------


@points
@pytest.mark.parametrize("beta", [1.0, BETA])
@pytest.mark.parametrize("how", [{"kl": "auto"}, *({"kl": "monte_carlo", **how} for how in MONTE_CARLO.values())])
def test_every_estimator_of_the_elbo_has_the_exact_gradient_as_its_mean(point, beta, how):
    model, x = make_at(*POINTS[point])
    exact_h, exact_w = exact_elbo_gradients(model, x, beta)
    objective = ELBO(K, **how) if beta == 1 else BetaELBO(beta, K, **how)
    h, w = replicates(model, x, objective)
    assert off(h, exact_h) < 4
    assert off(w, exact_w) < 4.5  # of twelve entries
    if beta != 1:  # the test can tell
        assert off(h, exact_elbo_gradients(model, x)[0]) > 10


@pytest.mark.parametrize("estimator", ["stl", "baseline"])
def test_no_variance_is_left_where_the_posterior_is_exact(estimator):
    model, x = make_at((0.0, 0.0), (1.0, 1.0))
    h, _ = replicates(model, x, ELBO(3, kl="monte_carlo", **MONTE_CARLO[estimator]), 1000)
    torch.testing.assert_close(h, torch.zeros_like(h), rtol=0, atol=1e-11)
    for other in ("pathwise", "score_function"):
        h, _ = replicates(model, x, ELBO(3, kl="monte_carlo", **MONTE_CARLO[other]), 1000)
        assert (h.std(0) > 0.1).all()


def test_the_score_function_is_the_noisiest_and_the_baseline_helps():
    model, x = make_at(*POINTS["wide"])
    variance = {
        name: spread(replicates(model, x, ELBO(K, kl="monte_carlo", **how))[0]) for name, how in MONTE_CARLO.items()
    }
    assert variance["score_function"] > 1.5 * variance["baseline"] > 3 * variance["pathwise"]


@pytest.mark.parametrize("beta", [1.0, BETA])
@pytest.mark.parametrize("baseline", [False, True])
def test_the_score_function_of_bits_is_the_sum_over_all_bits(beta, baseline):
    """2^3 latents, one by one: the gradient of `sum_z q(z) (log p(x | z) + beta (log p(z) - log q(z)))`."""
    bits, num = 3, REPLICATES
    decoder, posterior = Affine(bits, N), Bernoulli(bits, bits)
    nn.init.eye_(posterior.logits.weight)
    nn.init.zeros_(posterior.logits.bias)
    h, x = torch.randn(1, bits), torch.randn(1, 1, 1, N).double()

    def build(encoder):
        return VAE(encoder, decoder, posterior, Coins(bits), likelihoods.Normal(0.5), ELBO()).double()

    model = build(Given(h))
    z = torch.tensor(list(product([0.0, 1.0], repeat=bits))).double()[:, None]
    draw = model.draw(x, z=z, stop=("z",))
    expected = -(draw.log_qz.exp() * (draw.log_px + beta * (draw.log_pz - draw.log_qz))).sum()
    (expected,) = torch.autograd.grad(expected, model.encoder.h)
    model = build(Given(h.repeat(num, 1)))
    objective = BetaELBO(beta, 3, kl="monte_carlo", estimator="score_function", baseline=baseline)
    (num * objective(model, x.expand(num, -1, -1, -1), None, model.step)[0]).backward()
    assert off(model.encoder.h.grad, expected) < 4


# --- Importance weights -----------------------------------------------------------------------------------------

BOUNDS = {
    "iwae": (partial(IWAE, K), 0.0),
    "miwae": (partial(MIWAE, 3, K), 0.0),
    "ciwae": (partial(CIWAE, K, 0.3), 0.3),
    "ciwae_of_one": (partial(CIWAE, K, 1.0), 1.0),
}


@points
@pytest.mark.parametrize("estimator", ["pathwise", "dreg"])
@pytest.mark.parametrize("bound", slow_but(["iwae", "ciwae"], BOUNDS))
def test_pathwise_and_dreg_have_the_exact_gradient_as_their_mean(point, bound, estimator):
    objective, beta = BOUNDS[bound]
    model, x = make_at(*POINTS[point])
    of_elbo, of_iwae = exact_elbo_gradients(model, x), exact_iwae_gradients(model, x)
    expected = [beta * a + (1 - beta) * b for a, b in zip(of_elbo, of_iwae, strict=True)]
    h, w = replicates(model, x, objective(estimator=estimator))
    assert off(h, expected[0]) < 4
    assert off(w, expected[1]) < 4.5  # of twelve entries
    assert off(h, of_elbo[0] if beta < 1 else of_iwae[0]) > 10  # the test can tell


@points
def test_the_quadrature_has_converged(point):
    model, x = make_at(*POINTS[point])
    for a, b in zip(exact_iwae_gradients(model, x, 12), exact_iwae_gradients(model, x, 16), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_stl_of_iwae_is_biased_and_refused():
    def stl(model, x, y, step):
        draw = model.draw(x, y, K, stop=("q",))
        return -draw.iwae.mean(), draw

    model, x = make_at(*POINTS["wide"])
    h, w = replicates(model, x, stl)
    of_h, of_w = exact_iwae_gradients(model, x)
    assert off(h, of_h) > 10
    assert off(w, of_w) < 4.5
    for objective in (partial(IWAE, K), partial(MIWAE, 2, K), partial(CIWAE, K, 0.5)):
        with pytest.raises(ValueError, match=r"objective\.estimator=stl .*pathwise or dreg"):
            objective(estimator="stl")
        with pytest.raises(ValueError, match=r"objective\.estimator=score_function.*pathwise, dreg"):
            objective(estimator="score_function")


@pytest.mark.parametrize("bound", BOUNDS)
def test_dreg_leaves_no_variance_where_the_posterior_is_exact(bound):
    objective, _ = BOUNDS[bound]
    model, x = make_at((0.0, 0.0), (1.0, 1.0))
    h, _ = replicates(model, x, objective(estimator="dreg"), 1000)
    torch.testing.assert_close(h, torch.zeros_like(h), rtol=0, atol=1e-11)
    h, _ = replicates(model, x, objective(estimator="pathwise"), 1000)
    assert (h.std(0) > 0.1).all()


def test_more_latents_drown_the_signal_of_pathwise_and_not_that_of_dreg():
    """Mean over standard deviation falls as 1 / sqrt(K), with dreg it grows as sqrt(K) (Tucker et al., 2018)."""
    model, x = make_at((0.3, 0.3), (1.1, 1.1))
    for estimator, grows in (("pathwise", False), ("dreg", True)):
        few, many = (replicates(model, x, IWAE(k, estimator), 4000)[0] for k in (4, 64))
        signal = [(h.mean(0).norm() / spread(h) ** 0.5).item() for h in (few, many)]
        assert (signal[1] > 2 * signal[0]) if grows else (signal[1] < signal[0] / 2)


# --- PIWAE ------------------------------------------------------------------------------------------------------


def linear_parts(posterior, prior, **parts):
    decoder = Affine(LATENTS, N)
    return VAE(Flat(N, 6), decoder, posterior, prior, likelihoods.GaussianShared(0.5), ELBO(), **parts)


def randomised(module):
    """Flows and full normals start as diagonal normals, with zeros that hide what they do."""
    for p in module.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return module


PARTS = {
    "full_normal": lambda: linear_parts(FullNormal(6, LATENTS), StandardNormal(LATENTS)),
    "mixture": lambda: linear_parts(FullNormal(6, LATENTS), Mixture(LATENTS, 3)),
    "flow_prior": lambda: linear_parts(FullNormal(6, LATENTS), MAF(LATENTS, transforms=2, hidden_features=[8])),
    "flow": lambda: linear_parts(Flow(6, LATENTS, hidden=[8]), Mixture(LATENTS, 3)),
    "flows": lambda: linear_parts(Flow(6, LATENTS, hidden=[8]), MAF(LATENTS, transforms=2, hidden_features=[8])),
    "chains": lambda: HVAE(
        Flat(N, 6),
        Affine(LATENTS, N),
        BottomUp(6, LATENTS, [1], hidden=[8]),
        TopDown(LATENTS, [1], hidden=[8]),
        likelihoods.GaussianShared(0.5),
        ELBO(),
        latent_dim=LATENTS,
        upper_dims=[1],
    ),
    "corruption": lambda: linear_parts(
        FullNormal(6, LATENTS), Mixture(LATENTS, 3), corruption=corruptions.Gaussian(1.0)
    ),
}
PARTS = {name: lambda build=build: randomised(build().double()) for name, build in PARTS.items()}
parts = pytest.mark.parametrize("build", PARTS.values(), ids=PARTS)


def step(model, x, objective):
    """The draw, and the gradients of what makes q and of what makes p, from the same noise."""
    model.zero_grad()
    torch.manual_seed(1)
    loss, draw = objective(model, x, None, model.step)
    loss.backward()
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    of_q = {name: grad for name, grad in named.items() if name.startswith(("encoder", "posterior"))}
    return draw, of_q, {name: grad for name, grad in named.items() if name not in of_q}


@parts
def test_piwae_trains_q_on_miwae_and_p_on_iwae(build):
    model, x = build(), torch.randn(6, 1, 1, N).double()
    miwae, of_q, _ = step(model, x, MIWAE(3, 2))
    iwae, _, of_p = step(model, x, IWAE(6))
    draw, piwae_q, piwae_p = step(model, x, PIWAE(3, 2))
    torch.testing.assert_close(draw.z, miwae.z)
    torch.testing.assert_close(draw.extras["iwae"], iwae.extras["iwae"])
    assert piwae_q.keys() | piwae_p.keys() == {name for name, _ in model.named_parameters()}
    torch.testing.assert_close(piwae_q, of_q)
    torch.testing.assert_close(piwae_p, of_p)


@parts
def test_gradients_of_all_estimators_reach_every_parameter_and_agree_for_p(build):
    """One step's noise: what is not in q has the same gradient whatever is held constant."""
    model, x = build(), torch.randn(6, 1, 1, N).double()
    names = {name for name, _ in model.named_parameters()}
    for objectives in (
        [ELBO(3, kl="monte_carlo", **how) for how in MONTE_CARLO.values()],
        [IWAE(3), IWAE(3, "dreg")],
        [MIWAE(2, 3), MIWAE(2, 3, "dreg")],
        [CIWAE(3, 0.4), CIWAE(3, 0.4, "dreg")],
    ):
        steps = [step(model, x, objective) for objective in objectives]
        for draw, of_q, of_p in steps:
            assert of_q.keys() | of_p.keys() == names
            torch.testing.assert_close(draw.z, steps[0][0].z)
            torch.testing.assert_close(of_p, steps[0][2])


@pytest.mark.parametrize("build", [PARTS[name] for name in PARTS if name != "corruption"])
@pytest.mark.parametrize("k", [1, 3])
def test_dreg_is_the_sum_of_squared_weights(build, k):
    """`sum_k w_k^2 d log w_k / d z_k d z_k / d phi`, written out (Tucker et al., 2018, equation 8)."""
    model, x = build(), torch.randn(1, 1, 1, N).double()
    _, of_q, _ = step(model, x, IWAE(k, "dreg"))
    q = deepcopy(model).requires_grad_(False).encode(x)
    model.zero_grad()
    torch.manual_seed(1)
    draw = model.draw(x, num_samples=k)
    z = draw.z.detach().requires_grad_()
    log_w = draw.log_joint(z) - q.log_prob(z)
    (slope,) = torch.autograd.grad(log_w.sum(), z)
    w = log_w.detach().softmax(dim=0)
    (-(w.square()[..., None] * slope * draw.z).sum()).backward()
    torch.testing.assert_close({name: p.grad for name, p in model.named_parameters() if name in of_q}, of_q)
