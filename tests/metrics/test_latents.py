"""The use of the latents: ELBO surgery against quadrature and sums, the pruned nll against the exact log p(x)."""

import json
from math import log, sqrt

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.in_memory import Known, untrained
from helpers.linear import Affine, Flat, exact, make
from helpers.quadrature import plane
from helpers.runs import evaluated
from scipy import stats
from torch import nn
from torch.distributions import Independent, Normal

from vae_exp import charts
from vae_exp.chains import BottomUp
from vae_exp.config import NoMeaningError
from vae_exp.draws import Draw
from vae_exp.estimators.importance import importance_sampling
from vae_exp.metrics import latents as module
from vae_exp.metrics.latents import Posteriors, Pruned, elbo_surgery, latents, units
from vae_exp.objectives import ELBO
from vae_exp.posteriors import Bernoulli, Categorical, DiagonalNormal, Flow, FullNormal, Laplace
from vae_exp.priors import Bernoulli as Coins
from vae_exp.priors import Categorical as Dice
from vae_exp.priors import Mixture, StandardNormal
from vae_exp.runs.trained import restore

N, F = 5, 6
OPTIONS = {"threshold": 0.01, "num_images": 1000, "num_latents": 200, "nll_images": 8, "num_samples": 20}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lively(part, std=0.5):
    """Weights large enough that the images' posteriors differ."""
    for parameter in part.parameters():
        nn.init.normal_(parameter, std=std)
    return part.double().requires_grad_(False)


def parts_of(posterior, prior, h, num=1, group=None, c=None):
    """The posteriors of features in two batches."""
    parts = []
    for some in torch.arange(len(h)).split(3):
        q, p = posterior(h[some]), prior(None if c is None else c[some])
        z = q.sample((num,))
        of = torch.zeros(len(some), dtype=torch.long) if group is None else group[some]
        parts.append(Posteriors(q, z, q.log_prob(z), p.log_prob(z), of))
    return parts


def by_sum(log_q, log_p, cell):
    """I(x; z) and KL(q(z) || p(z)) by their definitions, from densities `(N, P)` and `(P,)` at the points of a grid."""
    log_q, log_p = np.asarray(log_q), np.asarray(log_p)
    q = np.exp(log_q)
    mix = q.mean(0)
    assert abs(q.sum(1) * cell - 1).max() < 2e-3  # the grid holds them all
    with np.errstate(divide="ignore", invalid="ignore"):
        mi = np.where(q > 0, q * (log_q - np.log(mix)), 0).sum(1).mean() * cell
        kl = np.where(mix > 0, mix * (np.log(mix) - log_p), 0).sum() * cell
    return mi, kl


def assert_agrees(numbers, mi, kl, error=0.07):
    for name, expected in (("mutual_information", mi), ("marginal_kl", kl), ("mean_kl", mi + kl)):
        assert 0 < numbers[f"{name}_se_draws"] < error
        assert abs(numbers[name] - expected) < 4 * numbers[f"{name}_se_draws"], name


def test_surgery_in_one_dimension_is_that_of_the_mixture_by_quadrature():
    mean, scale = [-1.5, -0.2, 0.0, 0.4, 2.0], [0.3, 0.8, 0.2, 1.0, 0.5]
    q = Independent(Normal(torch.tensor(mean).double()[:, None], torch.tensor(scale).double()[:, None]), 1)
    p = StandardNormal(1)(None)
    z = q.sample((1000,))
    numbers = elbo_surgery([Posteriors(q, z, q.log_prob(z), p.log_prob(z), torch.zeros(5).long())], 5000)
    grid = np.linspace(-12, 12, 20001)
    log_q = stats.norm(np.array(mean)[:, None], np.array(scale)[:, None]).logpdf(grid)
    mi, kl = by_sum(log_q, stats.norm.logpdf(grid), grid[1] - grid[0])
    assert_agrees(numbers, mi, kl)
    closed = np.mean([(s**2 + m**2 - 1) / 2 - log(s) for m, s in zip(mean, scale, strict=True)])
    assert abs(mi + kl - closed) < 1e-6  # the identity itself
    assert abs(numbers["mean_kl"] - closed) < 4 * numbers["mean_kl_se_draws"]
    assert numbers["mean_kl"] == pytest.approx(numbers["mutual_information"] + numbers["marginal_kl"])
    assert numbers["mutual_information_bound"] == pytest.approx(log(5))
    assert not numbers["mutual_information_saturated"]
    assert numbers["aggregate_images"] == 5


POSTERIORS = [DiagonalNormal(F, 2), FullNormal(F, 2), Laplace(F, 2), Flow(F, 2, hidden=[5]), BottomUp(F, 1, [1], [5])]


@pytest.mark.parametrize("prior", [StandardNormal, Mixture])
@pytest.mark.parametrize(
    "posterior",
    slow_but(POSTERIORS[:2], POSTERIORS),
    ids=lambda part: type(part).__name__,
)
def test_surgery_in_two_dimensions_is_that_of_the_mixture_by_quadrature(posterior, prior):
    """Any posterior: the densities of each image by itself, on a grid."""
    posterior, prior, h = lively(posterior, 0.3), lively(prior(2)), torch.randn(N, F).double()
    points, cell = plane(half_width=14, points=500)
    with torch.no_grad():
        numbers = elbo_surgery(parts_of(posterior, prior, h, 800), 4000)
        log_q = torch.stack([posterior(each[None]).log_prob(points[:, None])[:, 0] for each in h])
        log_p = prior(None).log_prob(points)
    mi, kl = by_sum(log_q, log_p, cell)
    assert mi > 0.1
    assert_agrees(numbers, mi, kl)


@pytest.mark.parametrize(
    ("posterior", "prior", "states"),
    [
        (Bernoulli(F, 3), Coins(3), torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)),
        (Categorical(F, 3, 3), Dice(3, 3), torch.eye(3)),
    ],
    ids=["bernoulli", "categorical"],
)
def test_surgery_of_discrete_latents_is_the_sum_over_states(posterior, prior, states):
    posterior, h = lively(posterior), torch.randn(N, F).double()
    numbers = elbo_surgery(parts_of(posterior, prior, h, 800), 4000)
    log_q = torch.stack([posterior(each[None]).log_prob(states.double()[:, None])[:, 0] for each in h])
    mi, kl = by_sum(log_q, prior(None).log_prob(states), 1.0)
    assert mi > 0.1
    assert_agrees(numbers, mi, kl)


def test_surgery_with_labels_is_that_within_each():
    """Two labels, three images and two, the prior another for each: the mean over images of each label's own."""
    posterior, prior = lively(DiagonalNormal(F, 1)), lively(Mixture(1, 2, context_dim=2))
    h = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0]).double()[:, None] * torch.randn(F).double()
    group = torch.tensor([3, 7, 3, 7, 3])
    c = torch.stack([group == 3, group == 7], dim=1).double()
    numbers = elbo_surgery(parts_of(posterior, prior, h, 6400, group, c), 32000)
    grid = torch.linspace(-40, 40, 40001).double()[:, None]
    each = []
    for label in (3, 7):
        of = group == label
        log_q = torch.stack([posterior(some[None]).log_prob(grid[:, None])[:, 0] for some in h[of]])
        log_p = prior(c[of][:1]).log_prob(grid[:, None])[:, 0]
        each.append(by_sum(log_q, log_p, 80 / 40000))
    (mi_3, kl_3), (mi_7, kl_7) = each
    assert abs(mi_3 - mi_7) > 0.05
    assert_agrees(numbers, 0.6 * mi_3 + 0.4 * mi_7, 0.6 * kl_3 + 0.4 * kl_7)
    assert numbers["mutual_information_bound"] == pytest.approx(0.6 * log(3) + 0.4 * log(2))


def test_posteriors_apart_have_log_n_and_are_marked():
    q = Independent(Normal(20.0 * torch.arange(40.0)[:, None], torch.ones(40, 1)), 1)
    z = q.sample((3,))
    part = Posteriors(q, z, q.log_prob(z), StandardNormal(1)(None).log_prob(z), torch.zeros(40).long())
    numbers = elbo_surgery([part], 120)
    assert numbers["mutual_information"] == pytest.approx(log(40), abs=1e-4)
    assert numbers["mutual_information_saturated"]
    # All the same: it is nothing.
    q = Independent(Normal(torch.zeros(40, 1), torch.ones(40, 1)), 1)
    part = Posteriors(q, z, q.log_prob(z), StandardNormal(1)(None).log_prob(z), torch.zeros(40).long())
    numbers = elbo_surgery([part], 120)
    assert numbers["mutual_information"] == pytest.approx(0, abs=1e-4)
    assert not numbers["mutual_information_saturated"]


def test_draws_go_evenly_through_the_images():
    """Fewer than images, or more: those of each image at their place."""
    mean = torch.arange(6.0)[:, None]
    q = Independent(Normal(100 * mean, torch.ones(6, 1)), 1)
    for num, per_image, expected in ((3, 1, [0, 2, 4]), (12, 2, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])):
        z = (100 * mean).expand(per_image, -1, -1)
        # With log p(z | c) the number of the image, the mean tells which were taken.
        part = Posteriors(q, z, torch.zeros(per_image, 6), mean[:, 0].expand(per_image, -1), torch.arange(6))
        numbers = elbo_surgery([part], num)
        assert numbers["mean_kl"] == pytest.approx(-np.mean(expected))
        # Each is scored by its own image, of which alone q(z) is made: a neighbour's would be 5000 nats off.
        assert numbers["mutual_information"] == pytest.approx(0.5 * log(2 * np.pi), abs=1e-5)


def test_chunks_change_nothing(monkeypatch):
    parts = parts_of(lively(FullNormal(F, 2)), StandardNormal(2), torch.randn(N, F).double(), 20)
    told = []
    whole = elbo_surgery(parts, 100)
    monkeypatch.setattr(module, "CHUNK", 3 * 3 * module.WIDTH)
    assert elbo_surgery(parts, 100, told.append) == pytest.approx(whole)
    assert told == [3] * 33 + [1]


def axes_posterior(mean, scale):
    """A posterior whose dimension d has the mean `mean[d] * x_d`."""
    posterior = DiagonalNormal(len(mean), len(mean))
    with torch.no_grad():
        for head in (posterior.mu, posterior.logvar):
            head.weight.zero_()
            head.bias.zero_()
        posterior.mu.weight.copy_(torch.tensor(mean).diag())
        posterior.logvar.bias.copy_(2 * torch.tensor(scale).log())
    return posterior


class Unknown(nn.Module):
    """A posterior that keeps its mean to itself, as a flow."""

    class Secret(Independent):
        @property
        def mean(self):
            raise NotImplementedError

        @property
        def variance(self):
            raise NotImplementedError

    def __init__(self, posterior):
        super().__init__()
        self.posterior, self.mu = posterior, posterior.mu

    def forward(self, h):
        return self.Secret(self.posterior(h).base_dist, 1)


def flat(dims):
    encoder = Flat(dims, dims)
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(dims))
        encoder.bias.zero_()
    return encoder


@pytest.mark.parametrize("is_known", [True, False], ids=["mean", "samples"])
def test_active_units_are_those_whose_posterior_mean_varies(is_known):
    """A mean m x has m^2 times the variance of x. A dead unit's noise, 1/50 in the mean of 50 latents, adds nothing."""
    x = torch.randn(600, 1, 1, 4).double()
    posterior = axes_posterior([0.0, 0.05, 0.2, -1.0], [1.0, 1.0, 0.7, 0.1])
    posterior = posterior if is_known else Unknown(posterior)
    run = Known(make(flat(4), Affine(4, 4), ELBO(), posterior=posterior), x)
    numbers = units(run, threshold=0.01)
    expected = x.flatten(1).var(dim=0, correction=0) * torch.tensor([0.0, 0.05, 0.2, -1.0]).square()
    error = 1e-6 if is_known else 4 * (0.02 + 0.2 * sqrt(0.02)) / sqrt(600)
    assert numbers["mean_variances"] == pytest.approx(expected.tolist(), abs=error)
    assert (numbers["active_units"], numbers["num_units"]) == (2, 4)
    shares = (
        None
        if not is_known
        else pytest.approx((expected / (expected + torch.tensor([1.0, 1.0, 0.7, 0.1]).square())).tolist(), rel=1e-5)
    )
    assert numbers["explained_variances"] == shares
    assert units(run, threshold=0.5)["active_units"] == 1
    s, m2 = (
        torch.tensor([1.0, 1.0, 0.7, 0.1]),
        expected + (x.flatten(1).mean(0) * torch.tensor([0.0, 0.05, 0.2, -1])) ** 2,
    )
    assert numbers["kl_per_dim"] == pytest.approx(((s**2 + m2 - 1) / 2 - s.log()).tolist(), rel=1e-5)


def axes_run(folder, mean, scale, num=600):
    """Images of as many normal numbers as there are latents, and posteriors around multiples of these."""
    x = torch.randn(num, 1, 1, len(mean)).double()
    model = make(flat(len(mean)), Affine(len(mean), len(mean)), ELBO(), posterior=axes_posterior(mean, scale))
    return Known(model, x, folder)


def test_verdicts_of_none_and_of_all(tmp_path):
    none = latents(axes_run(tmp_path, [0.0, 0.0], [1.0, 1.0], num=50), **OPTIONS)
    assert none["verdict"] == "0 of 2 units active"
    assert "nll_without_dead_units_8_images" in none
    every = latents(axes_run(tmp_path, [1.0, 1.0], [1.0, 1.0], num=50), **OPTIONS)
    assert every["verdict"].startswith("2 of 2 units active: all are in use")


def test_narrow_posteriors_around_means_that_vary_little_have_not_collapsed(tmp_path):
    """z = m x + s eps with x ~ N(0, 1): of each latent I(x; z) = log(1 + m^2 / s^2) / 2, however small m is."""
    m, s = 1e-3, 1e-4
    numbers = latents(axes_run(tmp_path, [m, m], [s, s]), **OPTIONS | {"num_latents": 2400})
    assert max(numbers["mean_variances"]) < 1e-5
    assert numbers["active_units"] == 0
    assert numbers["mutual_information"] == pytest.approx(log(1 + (m / s) ** 2), abs=0.3)
    closed = 2 * ((s**2 + m**2 - 1) / 2 - log(s))
    assert sum(numbers["kl_per_dim"]) == pytest.approx(closed, rel=1e-4)
    assert numbers["explained_variances"] == pytest.approx([1 / 1.01, 1 / 1.01], abs=0.002)
    assert "collapsed" not in numbers["verdict"]
    assert numbers["verdict"].startswith("0 of 2 units active: the posterior means vary little, but z still has 4.")
    assert numbers["nll_without_dead_units_refused"] == "no unit is dead"


def with_dead_unit(weight):
    """A model of one active dimension, whose posterior is the true one, and a second, of which it knows nothing right.

    x = W z + b with W's second column `weight` times a vector that is orthogonal to the first.
    """
    decoder = Affine(2, 4)
    with torch.no_grad():
        first = decoder.weight[:, 0]
        second = torch.randn(4)
        decoder.weight[:, 1] = weight * (second - first * (first @ second) / (first @ first))
    # For this encoder both heads: mean of p(z_1 | x), linear in x; of the second unit anything.
    model = make(Flat(4, 4), decoder, ELBO(), posterior=DiagonalNormal(4, 2))
    w, v = decoder.weight[:, 0].detach(), 0.25
    precision = 1 + w @ w / v
    with torch.no_grad():
        model.encoder.weight.copy_(torch.eye(4))
        model.encoder.bias.zero_()
        model.posterior.mu.weight.copy_(torch.stack([w / v / precision, torch.zeros(4)]))
        model.posterior.mu.bias.copy_(torch.tensor([-(w @ decoder.bias) / v / precision, 1.0]))
        model.posterior.logvar.weight.zero_()
        model.posterior.logvar.bias.copy_(torch.tensor([-precision.log(), log(0.25)]))
    return model.requires_grad_(False), torch.randn(6, 1, 1, 4).double()


def test_without_the_dead_unit_nll_is_exact_where_it_does_nothing():
    """The decoder ignores it: every weight is p(x), whatever the posterior made of the dead unit."""
    model, x = with_dead_unit(weight=0.0)
    log_px, true = exact(model, x)
    draw = model.draw(x)
    torch.testing.assert_close(draw.q.mean[:, 0], true.mean[:, 0])
    pruned = Draw(x, draw.z, Pruned(draw.q, draw.p, torch.tensor([False, True])), draw.p, draw.decode)
    torch.testing.assert_close(importance_sampling(pruned, 10).log_px, log_px)
    assert (importance_sampling(draw, 10).log_px - log_px).abs().max() > 0.05  # with it the weights vary


@pytest.mark.slow
def test_without_the_dead_unit_nll_is_a_bound_where_the_decoder_reads_it():
    model, x = with_dead_unit(weight=0.5)
    log_px, _ = exact(model, x)
    draw = model.draw(x)
    pruned = Draw(x, draw.z, Pruned(draw.q, draw.p, torch.tensor([False, True])), draw.p, draw.decode)
    ratio = (torch.stack([importance_sampling(pruned, 50).log_px for _ in range(400)]) - log_px).exp()
    error = ratio.std(0) / sqrt(len(ratio))
    assert (error < 0.05).all()
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert (ratio.log().mean(0) < 0).all()


def test_latents_of_a_model_with_a_dead_unit(tmp_path):
    model, x = with_dead_unit(weight=0.0)
    x = torch.cat([x, torch.randn(20, 1, 1, 4).double()])
    log_px, _ = exact(model, x)
    numbers = latents(Known(model, x, tmp_path), **OPTIONS)
    assert numbers["verdict"] == "1 of 2 units active"
    assert numbers["nll_without_dead_units_8_images"] == pytest.approx(-log_px[:8].mean().item(), abs=1e-9)
    assert abs(numbers["nll_8_images"] + log_px[:8].mean().item()) > 1e-3
    assert numbers["nll_without_dead_units_8_images_se_images"] == pytest.approx(log_px[:8].std().item() / sqrt(8))
    assert numbers["aggregate_images"] == len(x)
    _, kl = model.draw(x), model.draw(x).kl.mean().item()
    assert abs(numbers["mean_kl"] - kl) < 4 * numbers["mean_kl_se_draws"]
    assert sum(numbers["kl_per_dim"]) == pytest.approx(kl)
    assert (tmp_path / "images" / "kl_per_dim.png").stat().st_size > 5000


CASES = {
    "vae": ((), set()),
    "full_normal": (("posterior=full_normal",), {"nll_without_dead_units"}),
    "laplace": (("posterior=laplace",), set()),
    "flow": (("posterior=flow", "posterior.hidden=[8]"), {"nll_without_dead_units"}),
    "bernoulli": (("posterior=bernoulli", "objective.kl=monte_carlo", "objective.estimator=score_function"), set()),
    "mixture": (("prior=mixture",), {"nll_without_dead_units"}),
    "vamp": (("prior=vamp", "prior.pseudo_inputs=20"), {"nll_without_dead_units"}),
    "flow prior": (("prior=flow", "prior.hidden_features=[8]"), {"nll_without_dead_units"}),
    "cvae": (("model=cvae",), set()),
    "cvae mixture": (("model=cvae", "prior=mixture"), {"nll_without_dead_units"}),
    "m2": (("model=m2", "objective=semi_supervised"), {"nll_without_dead_units", "mutual_information"}),
    "m2 flow": (
        ("model=m2", "objective=semi_supervised", "posterior=flow", "posterior.hidden=[8]"),
        {"nll_without_dead_units", "mutual_information"},
    ),
    "hvae": (("model=hvae", "model.upper_dims=[2]"), {"nll_without_dead_units"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", slow_but(["laplace", "flow", "cvae mixture", "m2"], CASES))
def test_latents_of_every_model(case, tmp_path, monkeypatch):
    overrides, refused = CASES[case]
    trained = untrained(tmp_path, *overrides)
    monkeypatch.setattr(module, "DEAD", 1.0)  # every unit is
    numbers = latents(trained, **OPTIONS)
    json.dumps(numbers, allow_nan=False)
    assert {name.removesuffix("_refused") for name in numbers if name.endswith("_refused")} == refused
    assert all(numbers[name] is None for name in refused)
    if "mutual_information" not in refused:
        identity = numbers["mutual_information"] + numbers["marginal_kl"]
        assert numbers["mean_kl"] == pytest.approx(identity, abs=1e-9)
        assert numbers["mutual_information"] < numbers["mutual_information_bound"] + 1e-4
    if "nll_without_dead_units" not in refused:
        assert numbers["nll_without_dead_units_8_images"] > 0
    trained.reseed("latents")
    again = latents(trained, **OPTIONS)
    trained.reseed("latents")
    assert latents(trained, **OPTIONS) == again


def test_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(NoMeaningError, match="choose model=vae"):
        latents(untrained(tmp_path, "model=ae"), **OPTIONS)


@pytest.mark.slow
def test_evaluate_writes_them_and_the_picture(run):
    folder, metrics = run()
    numbers = evaluated(folder, "metrics=[latents,train_gap,elbo]", "num_samples=20")
    assert numbers["active_units"] == metrics["test/active_units"]
    assert sum(numbers["kl_per_dim"]) == pytest.approx(metrics["test/kl"], rel=1e-4)
    assert numbers["elbo_gap"] == pytest.approx(numbers["elbo_train"] - numbers["elbo"])
    assert numbers["elbo_train_images"] == 48 < 64  # all training images: the test split has more
    assert (folder / "images" / "kl_per_dim.png").exists()
    assert json.loads((folder / "evaluation.json").read_text())["verdict"] == numbers["verdict"]
    numbers = evaluated(folder, "metrics=[latents,train_gap,elbo]", "split=val", "num_samples=20")
    assert numbers["elbo_gap"] == pytest.approx(numbers["elbo_train"] - numbers["elbo"])
    trained = restore(folder, accelerator="cpu")
    trained.setup("train")
    (x, y), *_ = trained.subset("train", 16).data.batches("train")
    _, draw = trained.model.objective(trained.model, x, y, trained.model.step)
    assert torch.equal(x, next(iter(trained.data.batches("train")))[0][trained.chosen(16, "train")])
    assert numbers["elbo_train"] == pytest.approx(draw.elbo.mean().item(), rel=1e-6)
    assert (folder / "images" / "kl_per_dim_val.png").exists()
    with pytest.raises(NoMeaningError, match="split=train"):
        evaluated(folder, "metrics=[train_gap]", "split=train")


def test_an_autoencoder_has_a_gap_of_its_error(run):
    folder, _ = run("model=ae")
    numbers = evaluated(folder, "metrics=[train_gap,elbo]")
    assert numbers["recon_gap"] == pytest.approx(numbers["recon"] - numbers["recon_train"])
    assert "elbo_gap" not in numbers


@pytest.mark.parametrize("dims", [1, 100])
def test_the_picture_of_few_and_of_many(dims, tmp_path):
    kl = [2.0 / (1 + d) for d in range(dims)]
    figure = charts.bars(kl, [f"z{d}" for d in range(dims)], [d < 30 for d in range(dims)], "a run")
    assert charts.save(figure, tmp_path / "kl.png", "a test").stat().st_size > 5000
