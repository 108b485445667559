"""log p(x) by importance sampling: against closed forms and quadrature, and its sums against one-shot ones."""

import logging
from itertools import product
from math import log

import pytest
import torch
import torch.nn.functional as F
from helpers.cases import slow_but
from helpers.linear import exact, make_at
from helpers.m2 import CLASSES
from helpers.m2 import make as make_m2
from helpers.runs import evaluated

from vae_exp import decoders, encoders, likelihoods
from vae_exp.config import NoMeaningError
from vae_exp.estimators import importance as marginal
from vae_exp.estimators.importance import importance_sampling, of_weights, widest
from vae_exp.metrics.nll import nll_numbers
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal, Vamp

B = 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Known:
    """A draw whose weights are given, `(K, B)`: each time it is asked for some, it gives the next ones."""

    def __init__(self, log_w, size=1):
        self.weights, self.x, self.size, self.taken = log_w, torch.zeros(log_w.shape[1], 1, 1, 1), size, 0
        self.asked = []

    def resample(self, num):
        part = Known(self.weights[self.taken : self.taken + num], self.size)
        self.taken, self.asked = self.taken + num, [*self.asked, num]
        return part

    @property
    def log_w(self):
        return self.weights


def curve_by_hand(log_w, size):
    """The mean of `log 1/size sum_k w_k` over consecutive groups of so many."""
    whole = len(log_w) // size
    groups = [log_w[i * size : (i + 1) * size].double().logsumexp(0) - log(size) for i in range(whole)]
    return torch.stack(groups).mean(0)


@pytest.mark.parametrize(("num", "chunk"), [(1, 1), (7, 7), (25, 10), (100, 1), (1234, 10), (1250, 1000), (5000, 1000)])
def test_sums_over_chunks_are_those_of_all_at_once(monkeypatch, num, chunk):
    """Weights over hundreds of nats, in float32; several chunks, the last one short."""
    log_w = 60 * torch.randn(num, B) - 500
    monkeypatch.setattr(marginal, "CHUNK", chunk * B)
    monkeypatch.setattr(marginal, "widest", lambda draw: 1)
    draw, told = Known(log_w), []
    streamed = importance_sampling(draw, num, told.append)
    assert max(draw.asked) == min(chunk, num)
    assert sum(told) == num * B
    whole = log_w.double()
    torch.testing.assert_close(streamed.log_px, whole.logsumexp(0) - log(num), rtol=1e-13, atol=0)
    normalised = whole.softmax(0)
    torch.testing.assert_close(streamed.ess, 1 / normalised.square().sum(0), rtol=1e-10, atol=0)
    assert list(streamed.curve) == [*(10**i for i in range(5) if 10**i < num), num]
    for size, bound in streamed.curve.items():
        torch.testing.assert_close(bound, curve_by_hand(log_w, size), rtol=1e-13, atol=0)
    at_once = of_weights(whole)
    torch.testing.assert_close(at_once.log_px, streamed.log_px)
    torch.testing.assert_close(at_once.ess, streamed.ess)
    if num > 1:
        w = normalised * num  # of mean 1
        torch.testing.assert_close(streamed.variance, w.var(0) / num)
        torch.testing.assert_close(at_once.variance, streamed.variance)
    else:
        assert streamed.variance.isnan().all()


def test_the_effective_sample_size():
    """Equal weights count in full, one weight above all the others as one, half of them zero as half."""
    ess = of_weights(torch.tensor([[0.0, 0.0, 5.0], [-200.0, 0.0, 5.0], [-200.0, 0.0, -200], [-300.0, 0.0, -200]])).ess
    torch.testing.assert_close(ess, torch.tensor([1.0, 4.0, 2.0]))
    # A wrong normal for a normal: 1 / E w^2, w = N(0, 1) / N(0, 2^2), which is sqrt(7) / 4.
    z = 2 * torch.randn(200_000, 1).double()
    ess = of_weights(log(2) - z.square() / 2 + z.square() / 8).ess
    assert ess.item() / len(z) == pytest.approx(7**0.5 / 4, rel=0.01)


@torch.no_grad()
def test_on_the_linear_gaussian_model_with_a_wrong_posterior():
    """The estimate averages to p(x); its log lies below, by less with more latents; its errors are what they say."""
    model, x = make_at([0.5, -0.5], [[1.3, 0.0], [0.3, 0.8]])
    true, _ = exact(model, x)
    found = importance_sampling(model.draw(x.expand(1000, -1, -1, -1)), 100)
    off = found.log_px - true
    ratio = off.exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 1000**0.5
    assert ratio.std() / 1000**0.5 < 0.02
    assert -0.05 < off.mean() < 2 * off.std() / 1000**0.5
    assert found.variance.mean() == pytest.approx(off.var().item(), rel=0.2)
    one, ten, hundred = (found.curve[size].mean() - true for size in (1, 10, 100))
    assert one < ten - 0.1 < hundred < 0.05
    elbo = model.draw(x, num_samples=1000).elbo
    assert found.curve[1].mean() == pytest.approx(elbo.item(), abs=0.1)  # of one latent it is the elbo
    torch.manual_seed(1)
    again = importance_sampling(model.draw(x), 200).log_px
    torch.manual_seed(1)
    assert torch.equal(model.log_marginal(x, num_samples=200), again)
    with pytest.raises(ValueError, match="num_samples=0"):
        importance_sampling(model.draw(x), 0)


def parts(likelihood, image, hidden, prior=None):
    params = getattr(likelihood, "params_per_pixel", 1)
    return VAE(
        encoders.MLP(image, hidden=[3], out_features=4),
        decoders.MLP(2, image, hidden=hidden, params_per_pixel=params),
        DiagonalNormal(4, 2), prior or StandardNormal(2), likelihood, ELBO(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        (parts(likelihoods.Bernoulli(), (1, 5, 5), [10]), 25),
        (parts(likelihoods.Bernoulli(), (1, 5, 5), [70]), 70),
        (parts(likelihoods.Categorical(), (1, 5, 5), [70]), 256 * 25),
        (parts(likelihoods.Bernoulli(), (1, 5, 5), [10], Vamp((1, 5, 5), pseudo_inputs=90)), 180),
    ],
)
def test_chunks_are_made_for_the_largest_tensor(model, numbers):
    """That of the image, a layer, the params or the prior, which compares each latent with each pseudo-input."""
    draw = model.eval().draw(torch.rand(6, 1, 5, 5).round())
    assert widest(draw) == numbers


# --- m2 -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_m2_sums_over_the_label():
    """All sixteen images: against quadrature over z and y, and against each class by itself."""
    image = (1, 2, 2)
    model = make_m2(image=image).eval()
    for weight in model.decoder.parameters():
        weight *= 2
    x = torch.tensor(list(product([0.0, 1.0], repeat=4))).view(16, *image)
    side = torch.linspace(-9, 9, 181)
    z = torch.cartesian_prod(side, side)
    log_pz = model.prior().log_prob(z).double() + 2 * (side[1] - side[0]).double().log()
    log_joint = []
    for label in range(CLASSES):
        logits = model.decoder(z, F.one_hot(torch.tensor([label]), CLASSES).float().expand(len(z), -1))
        log_px = (logits.flatten(1) @ x.flatten(1).T - F.softplus(logits).flatten(1).sum(1, keepdim=True)).double()
        log_joint.append((log_px + log_pz[:, None]).logsumexp(0) - log(CLASSES))
    true = torch.stack(log_joint).logsumexp(0)
    labels = torch.zeros(16, dtype=torch.long)  # which say nothing in evaluation
    draw = model.draw(x, labels)
    found = importance_sampling(draw, 20_000)
    assert (found.variance.sqrt() < 0.03).all()
    assert ((found.log_px - true).abs() < 5 * found.variance.sqrt() + 1e-4).all()
    fresh = draw.resample(5)
    assert fresh.z.shape == (5, CLASSES * 16, 2)
    assert torch.equal(fresh.log_qy, draw.log_qy)
    by_class = fresh.each.log_w.view(5, CLASSES, 16)
    expected = torch.stack([by_class[:, label] for label in range(CLASSES)]).exp().mean(0).log()
    torch.testing.assert_close(fresh.log_w, expected)
    # A class of a z is scored with itself: the weight of the class alone, by hand.
    c = F.one_hot(torch.arange(CLASSES).repeat_interleave(16), CLASSES).float()
    log_px = model.decode(fresh.z, c).log_prob(x.repeat(CLASSES, 1, 1, 1))
    log_pz = model.prior().log_prob(fresh.z)
    log_qz = model.posterior(model.encoder(x.repeat(CLASSES, 1, 1, 1), c)).log_prob(fresh.z)
    torch.testing.assert_close(fresh.each.log_w, log_px + log_pz - log_qz, rtol=1e-4, atol=1e-4)


# --- The numbers --------------------------------------------------------------------------------------------------


def test_numbers_of_batches_are_those_of_all_images():
    log_w = 2 * torch.randn(100, 10).double()
    numbers = nll_numbers([of_weights(log_w[:, :4]), of_weights(log_w[:, 4:])])
    log_px = log_w.exp().mean(0).log()
    assert numbers["nll"] == pytest.approx(-log_px.mean().item())
    assert numbers["nll_se_images"] == pytest.approx(log_px.std().item() / 10**0.5)
    variance = log_w.exp().var(0) / 100 / log_w.exp().mean(0).square()
    assert numbers["nll_se_draws"] == pytest.approx(variance.sum().sqrt().item() / 10)
    ess = log_w.exp().sum(0).square() / log_w.exp().square().sum(0)
    assert numbers["ess_mean"] == pytest.approx(ess.mean().item())
    assert numbers["ess_median"] == pytest.approx(ess.median().item())
    assert numbers["ess_min"] == pytest.approx(ess.min().item())
    assert numbers["share_with_ess_under_10"] == (ess < 10).double().mean()
    assert 0 < numbers["share_with_ess_under_10"] < 1


def test_an_error_that_is_not_to_be_had_is_none():
    """Of one image there is none over images, of one latent none over draws: no nan, which JSON has not."""
    numbers = nll_numbers([of_weights(torch.randn(1, 1).double())])
    assert numbers["nll_se_images"] is None
    assert numbers["nll_se_draws"] is None
    assert (numbers["ess_min"], numbers["share_with_ess_under_10"]) == (1, 1)


M2, FLOW = "model=m2 data.labelled=8 data.labelled_per_batch=4", "posterior=flow prior=vamp prior.pseudo_inputs=3"
CHOSEN = [
    "",
    "model=cvae",
    M2,
    "model=hvae posterior=bottom_up prior=top_down model.upper_dims=[2]",
    "posterior=bernoulli prior=bernoulli objective.kl=monte_carlo objective.estimator=score_function",
    FLOW,
]


@pytest.mark.parametrize("chosen", slow_but([M2, FLOW], CHOSEN))
def test_every_model_with_a_density_has_an_nll(run, chosen, caplog):
    folder, metrics = run(*chosen.split(), "likelihood=sse", "trainer.max_epochs=1")
    caplog.set_level(logging.INFO)
    numbers = evaluated(folder, "metrics=[nll]", "num_samples=30")
    assert numbers["nll_curve"].keys() == {1, 10, 30}
    assert numbers["nll"] == numbers["nll_curve"][30] <= numbers["nll_curve"][10] <= numbers["nll_curve"][1]
    assert numbers["nll_samples"] == 30
    # The elbo is that of training's test, with other latents.
    assert numbers["nll_curve"][1] == pytest.approx(-metrics["test/elbo"], abs=2)
    assert 1 <= numbers["ess_min"] <= numbers["ess_median"] <= 30
    assert ("effective sample size is under 10" in caplog.text) == (numbers["share_with_ess_under_10"] > 0)
    assert evaluated(folder, "metrics=[nll]", "num_samples=30") == numbers
    alone = evaluated(folder, "metrics=[nll]", "num_samples=1")
    assert alone["nll_se_draws"] is None


def test_an_autoencoder_has_none(run):
    folder, _ = run("model=ae", "trainer.max_epochs=1")
    with pytest.raises(NoMeaningError, match="no density over its codes"):
        evaluated(folder, "metrics=[nll]")
