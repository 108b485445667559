"""Annealed importance sampling against a model whose log p(x) is known, and on runs."""

from itertools import pairwise
from math import log

import pytest
import torch
from helpers.cases import slow_but
from helpers.linear import Affine, Flat, exact, make, make_at
from helpers.runs import composed, evaluated
from torch import nn
from torch.distributions import Normal

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.estimators.annealing import Bridge, adapt, anneal, schedule
from vae_exp.estimators.importance import of_weights
from vae_exp.objectives import ELBO
from vae_exp.runs.trained import restore
from vae_exp.training.job import train

WRONG = ([0.5, -0.5], [[1.3, 0.0], [0.3, 0.8]])  # a posterior that is off the true one
FEW = ("ais.num_images=3", "ais.chains=2", "ais.temperatures=3", "ais.leapfrog=2", "num_samples=20")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_unbiased(log_ratio):
    """`exp(log_ratio (N,))` has the mean 1 within four standard errors, and these are small enough to tell."""
    ratio = log_ratio.exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error


def of_draw(draw, chains, temperatures, leapfrog=3):
    """What the metric does: step sizes of a run of their own, then weights."""
    bridge, betas = Bridge(draw.log_prior, draw.log_likelihood), schedule(temperatures)
    sizes = adapt(bridge, draw.sample_prior(chains), betas, leapfrog)
    log_w, accepted = anneal(bridge, draw.sample_prior(chains), betas, sizes, leapfrog)
    return bridge, betas, sizes, log_w, accepted


# --- Against the truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chains", "temperatures"), [(4, 40), (8, 20)])
def test_the_estimate_averages_to_p_of_x_and_its_log_lies_just_below(chains, temperatures):
    model, x = make_at(*WRONG)
    true, _ = exact(model, x)
    draw = model.draw(x.expand(1000, -1, -1, -1))  # a replicate each, with step sizes of its own
    _, _, _, log_w, accepted = of_draw(draw, chains, temperatures)
    assert log_w.dtype == torch.float64
    assert abs(accepted.mean() - 0.65) < 0.1
    off = of_weights(log_w).log_px - true
    assert_unbiased(off)
    error = off.std() / len(off) ** 0.5
    assert -0.05 < off.mean() < 2 * error
    # The delta method's variance is that of the replicates.
    assert of_weights(log_w).variance.mean() == pytest.approx(off.var().item(), rel=0.2)
    # From the prior in one step, importance sampling: far worse, so that the above is annealing's doing.
    alone = of_weights(draw.log_likelihood(draw.sample_prior(chains)).double()).log_px - true
    assert alone.mean() < -0.1


@pytest.mark.slow
def test_the_bidirectional_bounds_enclose_log_p_of_what_was_simulated():
    """All chains backwards start from the one z that x was made of."""
    model = make(Flat(4, 5), Affine(2, 4), ELBO(1))
    draw = model.draw(torch.zeros(1500, 1, 1, 4).double())
    z = draw.sample_prior(1)
    x = draw.decode(z).sample()[0]
    true, _ = exact(model, x)
    bridge, betas, sizes, log_w, _ = of_draw(model.draw(x), 8, 60, 5)
    lower = of_weights(log_w).log_px - true
    backwards, accepted = anneal(bridge, z.expand(8, -1, -1), betas[::-1], sizes[::-1], 5)
    upper = -of_weights(backwards).log_px - true
    assert abs(accepted.mean() - 0.65) < 0.1
    assert_unbiased(lower)
    assert_unbiased(-upper)
    for each in (lower, -upper):
        assert each.mean() < -2 * each.std() / len(x) ** 0.5
    assert 0 < (upper - lower).mean() < 0.1


def test_without_transitions_the_weight_is_the_likelihood():
    """The steps of beta add up to one, and a bridge of two temperatures is importance sampling from the prior."""
    z = torch.randn(3, 5, 2).double()
    bridge = Bridge(lambda z: Normal(0.0, 1.0).log_prob(z).sum(-1), lambda z: -z.square().sum(-1))
    log_w, _ = anneal(bridge, z, [0.0, 1.0], [], 5)
    torch.testing.assert_close(log_w, bridge.log_likelihood(z))
    still = [torch.zeros(5, 1)] * 9  # steps of no length
    log_w, accepted = anneal(bridge, z, schedule(10), still, 5)
    torch.testing.assert_close(log_w, bridge.log_likelihood(z))
    torch.testing.assert_close(accepted, torch.ones(5).double())


def test_the_schedule_is_a_sigmoid():
    betas = schedule(500)
    assert (len(betas), betas[0], betas[-1]) == (501, 0.0, 1.0)
    steps = [end - start for start, end in pairwise(betas)]
    assert min(steps) > 0
    assert steps == pytest.approx(steps[::-1])
    assert steps[250] / steps[0] == pytest.approx(0.25 / (1 / (1 + 54.598) * (1 - 1 / 55.598)), rel=0.02)


@pytest.mark.slow
def test_step_sizes_are_found_image_by_image():
    """Posteriors 0.01 and 1 wide: at the end their step sizes differ as much, at the start they do not."""
    scale = torch.tensor([0.01, 1.0])
    bridge = Bridge(
        lambda z: Normal(0.0, 1.0).log_prob(z).sum(-1), lambda z: -0.5 * (z / scale[:, None]).square().sum(-1)
    )
    betas = schedule(300)
    sizes = adapt(bridge, torch.randn(50, 2, 3), betas, 5)
    assert len(sizes) == 299
    assert sizes[-1].shape == (2, 1)
    assert abs(sizes[10][0].log() - sizes[10][1].log()) < log(20)
    # The first is a normal with variance 1 / (1 + 10^4), the second one with 1 / 2.
    assert (sizes[-1][1] / sizes[-1][0]).item() == pytest.approx((1e4 / 2) ** 0.5, rel=0.3)
    _, accepted = anneal(bridge, torch.randn(500, 2, 3), betas, sizes, 5)
    assert ((accepted - 0.65).abs() < 0.1).all()


# --- Runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_which_log_p_is_known(tmp_path):
    """A linear decoder and normal noise, trained a little: the numbers of its metric against the closed form."""
    data = ("data=linear_gaussian", "data.image_shape=[1,2,2]", "data.train_size=200", "data.source.val_size=20")
    overrides = (
        *data,
        "data.source.test_size=20",
        "decoder=linear",
        "likelihood=gaussian_shared",
        "latent_dim=3",
        "likelihood.init_scale=0.5",
    )
    short = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none", "callbacks.pictures=null")
    folder = tmp_path / "run"
    train(composed(*overrides, *short), folder)
    trained = restore(folder, accelerator="cpu", progress=False)
    x, _ = trained.images(12)
    model = trained.model
    affine = Affine(3, 4)
    affine.weight.data, affine.bias.data = model.decoder.layers[0].weight, model.decoder.layers[0].bias
    true = -exact(make(nn.Identity(), affine, ELBO(), model.likelihood.log_scale.exp().item(), model.posterior), x)[0]
    options = ("ais.num_images=12", "ais.chains=16", "ais.temperatures=40", "num_samples=2000")
    numbers = evaluated(folder, "metrics=[nll,ais]", *options)
    for how in ("ais", "is"):
        name = f"nll_{how}_12_images"
        assert numbers[name] == pytest.approx(true.mean().item(), abs=5 * numbers[f"{name}_se_draws"] + 0.01)
        assert numbers[f"{name}_se_images"] == pytest.approx(true.std().item() / 12**0.5, rel=0.1)
        assert 0 < numbers[f"{name}_se_draws"] < 0.05
    assert 1 <= numbers["nll_ais_12_images_ess_min"] <= numbers["nll_ais_12_images_ess_median"] <= 16
    assert abs(numbers["ais_acceptance"] - 0.65) < 0.1
    assert numbers["ais_acceptance_min"] <= numbers["ais_acceptance"]
    assert numbers["bdmc_gap"] == pytest.approx(numbers["bdmc_upper"] - numbers["bdmc_lower"])
    assert abs(numbers["bdmc_gap"]) < 0.1
    assert "nll" in numbers


CHOSEN = {
    "vae": "",
    "cvae": "model=cvae prior=mixture",
    "hvae": "model=hvae posterior=bottom_up prior=top_down model.upper_dims=[2]",
    "flow": "posterior=flow prior=flow",
    "vamp": "prior=vamp prior.pseudo_inputs=4 likelihood=discretized_logistic",
    "laplace": "posterior=laplace likelihood=categorical_256",
}


@pytest.mark.parametrize("name", slow_but(["cvae", "flow"], CHOSEN))
def test_every_model_with_slopes_has_it_and_gives_it_twice(run, name):
    chosen = CHOSEN[name]
    folder, _ = run(*chosen.split(), "trainer.max_epochs=1")
    numbers = evaluated(folder, "metrics=ais", *FEW)
    assert numbers["bdmc_images"] == 3
    assert numbers["ais"] == {"chains": 2, "temperatures": 3, "leapfrog": 2}
    torch.manual_seed(3)
    assert evaluated(folder, "metrics=ais", *FEW) == numbers


REFUSED = {
    "ae": ("model=ae", "no density over its codes"),
    "m2": ("model=m2 data.labelled=8 data.labelled_per_batch=4", "choose model=cvae, or metrics=nll"),
    "bernoulli": ("posterior=bernoulli prior=bernoulli", "discrete: choose metrics=nll"),
    "categorical": ("posterior=categorical prior=categorical latent_dim=8", "discrete: choose metrics=nll"),
}


@pytest.mark.parametrize("name", slow_but(["ae", "bernoulli"], REFUSED))
def test_what_has_no_slopes_refuses(run, name):
    chosen, reason = REFUSED[name]
    if "bernoulli" in chosen or "categorical" in chosen:
        chosen += " objective.kl=monte_carlo objective.estimator=score_function"
    folder, _ = run(*chosen.split(), "trainer.max_epochs=1")
    with pytest.raises(NoMeaningError, match=reason):
        evaluated(folder, "metrics=ais", *FEW)
    if "ae" not in chosen:
        assert "nll" in evaluated(folder, *FEW, "metrics=[all,ais]")


def test_it_runs_when_asked_for(run, caplog):
    folder, _ = run("trainer.max_epochs=1")
    assert not any("ais" in name or "bdmc" in name for name in evaluated(folder, "num_samples=10"))
    for wrong in ("ais.chains=1", "ais.num_images=0", "ais.temperatures=1", "ais.leapfrog=0"):
        with pytest.raises(ConfigError, match=wrong):
            evaluated(folder, wrong, "metrics=[nll,ais]", "num_samples=10")
    caplog.clear()
    numbers = evaluated(folder, "metrics=[ais]", *FEW)
    assert ("of the proposals are accepted" in caplog.text) == (abs(numbers["ais_acceptance"] - 0.65) > 0.15)
    other = evaluated(folder, "metrics=[ais]", *FEW, "seed=1", "ais.num_images=1")
    assert other["nll_ais_1_images_se_images"] is None
    assert other["bdmc_gap_se_images"] is None
