"""What a draw holds constant: the same values, and the gradient of a copy whose parameters are frozen."""

from copy import deepcopy
from functools import partial
from itertools import combinations

import pytest
import torch
from helpers.linear import Affine, Flat
from torch import nn
from zuko.flows import MAF

from vae_exp import likelihoods
from vae_exp.chains import BottomUp, TopDown
from vae_exp.draws import STOPS, Draw
from vae_exp.models import HVAE, M2, VAE
from vae_exp.objectives import (
    CIWAE,
    DIP,
    ELBO,
    IWAE,
    MCEM,
    MIWAE,
    MMD,
    PIWAE,
    BetaELBO,
    BetaTCVAE,
    Capacity,
    FreeBits,
    Recon,
    SemiSupervised,
    WakeSleep,
)
from vae_exp.posteriors import DiagonalNormal, Flow, FullNormal, Laplace
from vae_exp.priors import Mixture, StandardNormal, Vamp

B, N, F, D, K = 3, 4, 5, 2, 3
TERMS = ("log_px", "log_pz", "log_qz")

POSTERIORS = {
    "diagonal_normal": partial(DiagonalNormal, F, D),
    "full_normal": partial(FullNormal, F, D),
    "laplace": partial(Laplace, F, D),
    "flow": partial(Flow, F, D, hidden=[8]),
    "bottom_up": partial(BottomUp, F, 1, [1], hidden=[8]),
}
PRIORS = {
    "standard_normal": partial(StandardNormal, D),
    "mixture": partial(Mixture, D, 3),
    "flow": partial(MAF, D, transforms=2, hidden_features=[8]),
    "vamp": partial(Vamp, (1, 1, N), pseudo_inputs=3),
    "top_down": partial(TopDown, 1, [1], hidden=[8]),
}
STOPPED = [stop for num in (1, 2, 3) for stop in combinations(STOPS, num)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(posterior="full_normal", prior="mixture", cls=VAE, **parts):
    parts = {"likelihood": likelihoods.GaussianShared(0.5), "objective": ELBO(), **parts}
    model = cls(Flat(N, F), Deep(), POSTERIORS[posterior](), PRIORS[prior](), **parts).double()
    for p in model.parameters():  # flows start as if they were not there
        p.data += 0.3 * torch.randn_like(p)
    return model


class Deep(nn.Module):
    """A decoder that is not linear."""

    def __init__(self):
        super().__init__()
        self.affine = Affine(D, N)

    def forward(self, z, c=None):
        return self.affine(z).tanh()


def noisy(model, x, stop=(), y=None):
    torch.manual_seed(1)
    return model.draw(x, y, K, stop=stop)


def reference(model, x, stop):
    """The terms by copies of the model whose parameters are frozen where `stop` says so."""
    z = noisy(model, x).z
    if "z" in stop:
        z = z.detach()
    copy = deepcopy(model).requires_grad_(False)
    q, p = ((copy if name in stop else model).draw(x, z=z) for name in ("q", "p"))
    return {"log_px": p.log_px, "log_pz": p.log_pz, "log_qz": q.log_qz}


def gradient(model, term, weights):
    """By all parameters, each latent of each image with a weight of its own."""
    if not term.requires_grad:
        return [torch.zeros_like(p) for p in model.parameters()]
    grads = torch.autograd.grad((weights * term).sum(), list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), grads, strict=True)]


def assert_stops(model, stop):
    x, weights = torch.randn(B, 1, 1, N).double(), torch.randn(K, B).double()
    expected, free, draw = reference(model, x, stop), noisy(model, x), noisy(model, x, stop)
    torch.testing.assert_close(draw.z, free.z)
    assert draw.z.requires_grad == ("z" not in stop)
    for name in TERMS:
        term = getattr(draw, name)
        torch.testing.assert_close(term, getattr(free, name))
        torch.testing.assert_close(gradient(model, term, weights), gradient(model, expected[name], weights))
    for term in ("elbo", "iwae", "recon", "kl"):
        torch.testing.assert_close(getattr(draw, term), getattr(free, term))


@pytest.mark.parametrize("stop", STOPPED, ids="".join)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_stops_of_every_posterior(posterior, stop):
    assert_stops(make(posterior), stop)


@pytest.mark.parametrize("stop", STOPPED, ids="".join)
@pytest.mark.parametrize("prior", PRIORS)
def test_stops_of_every_prior(prior, stop):
    assert_stops(make(prior=prior), stop)


@pytest.mark.parametrize("stop", STOPPED, ids="".join)
def test_stops_of_a_hierarchy(stop):
    assert_stops(make("bottom_up", "top_down", HVAE, latent_dim=D, upper_dims=[]), stop)


def test_a_stop_that_is_none_is_named():
    draw = noisy(make(), torch.randn(B, 1, 1, N).double())
    with pytest.raises(ValueError, match=r"stop=\('x',\): choose of z, q, p"):
        Draw(draw.x, draw.z, draw.q, draw.p, draw.decode, ("x",))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("stop", [(), *STOPPED], ids="".join)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_without_gradients_stops_change_nothing(posterior, stop, mode):
    model, x = make(posterior), torch.randn(B, 1, 1, N).double()
    with mode():
        free, draw = noisy(model, x), noisy(model, x, stop)
        for name in ("z", *TERMS, "elbo", "iwae"):
            torch.testing.assert_close(getattr(draw, name), getattr(free, name))
            assert not getattr(draw, name).requires_grad


MC = {"num_samples": 2, "kl": "monte_carlo"}
OBJECTIVES = {
    "elbo": ELBO(),
    "monte_carlo": ELBO(**MC),
    "stl": ELBO(**MC, estimator="stl"),
    "score_function": ELBO(**MC, estimator="score_function"),
    "baseline": ELBO(**MC, estimator="score_function", baseline=True),
    "beta_elbo": BetaELBO(3.0, **MC, estimator="stl"),
    "iwae": IWAE(3),
    "iwae_dreg": IWAE(3, "dreg"),
    "miwae": MIWAE(2, 3),
    "miwae_dreg": MIWAE(2, 3, "dreg"),
    "ciwae": CIWAE(3, 0.3),
    "ciwae_dreg": CIWAE(3, 0.3, "dreg"),
    "piwae": PIWAE(2, 3),
    "wake_sleep": WakeSleep(2),
    "mcem": MCEM(2, transitions=2, leapfrog=3),
    "recon": Recon(2),
    "mmd": MMD(0.5, 10.0),
    "dip": DIP(2, 1.0, 1.0),
    "capacity": Capacity(10.0, 1.0),
    "free_bits": FreeBits(0.5),
    "beta_tcvae": BetaTCVAE(4.0, 100),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_scores_without_gradients(objective, training, mode):
    model, x = make("diagonal_normal", "standard_normal").train(training), torch.randn(B, 1, 1, N).double()
    with mode():
        loss, draw = OBJECTIVES[objective](model, x, None, model.step)
        assert loss.shape == ()
        assert loss.isfinite()
        for term in (draw.elbo, *draw.terms.values()):
            assert term.shape == (B,)
            assert term.isfinite().all()


@pytest.mark.parametrize("objective", ["elbo", "stl", "baseline", "iwae_dreg", "piwae", "wake_sleep", "mcem"])
@pytest.mark.parametrize("posterior", ["flow", "bottom_up"])
def test_objectives_of_posteriors_without_a_closed_form(posterior, objective):
    """With gradients to every parameter, and without."""
    model, x = make(posterior), torch.randn(B, 1, 1, N).double()
    loss, _ = OBJECTIVES[objective](model, x, None, model.step)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    with torch.inference_mode():
        assert OBJECTIVES[objective](model, x, None, model.step)[0].isfinite()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_m2_scores_without_gradients_and_stops_nothing(mode):
    model = M2(
        Labelled(N + 2, F), LabelledAffine(D + 2, N), POSTERIORS["diagonal_normal"](), PRIORS["standard_normal"](),
        likelihoods.Normal(0.5), SemiSupervised(1.0), context_dim=2, classifier=Flat(N, F), classifier_features=F,
    )  # fmt: skip
    x, y = torch.randn(B, 1, 1, N), torch.tensor([0, -1, 1])
    for training in (True, False):
        with mode():
            assert model.train(training).objective(model, x, y, model.step)[0].isfinite()
    with pytest.raises(ValueError, match="stops no gradient"):
        model.draw(x, y, stop=("q",))


class Labelled(Flat):
    def forward(self, x, c=None):
        return super().forward(torch.cat([x.flatten(1), c], dim=1))


class LabelledAffine(Affine):
    def forward(self, z, c=None):
        return super().forward(torch.cat([z, c], dim=1))
