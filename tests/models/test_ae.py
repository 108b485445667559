"""Autoencoders: the loss of a VAE without noise and without a KL."""

import csv

import pytest
import torch
from helpers.runs import PICTURED, SMALL, composed, curve, evaluated, pictures, record, resume

from vae_exp import decoders, encoders, likelihoods
from vae_exp.config import ConfigError
from vae_exp.models import AE, VAE
from vae_exp.objectives import BetaELBO, Recon
from vae_exp.posteriors import DiagonalNormal, Point
from vae_exp.priors import NoPrior, StandardNormal
from vae_exp.runs.build import build

IMAGE, D, FEATURES = (1, 8, 8), 3, 6


def networks():
    encoder = encoders.MLP(IMAGE, hidden=[7], out_features=FEATURES, activation="Tanh")
    return encoder, decoders.MLP(D, IMAGE, hidden=[7], activation="Tanh")


def make_both(likelihood):
    """An autoencoder, and a VAE of the same weights whose posterior has next to no width."""
    torch.manual_seed(0)
    ae = AE(*networks(), Point(FEATURES, D), NoPrior(), likelihood, Recon())
    vae = VAE(*networks(), DiagonalNormal(FEATURES, D), StandardNormal(D), likelihood, BetaELBO(0.0))
    logvar = {"posterior.logvar.weight": torch.zeros(D, FEATURES), "posterior.logvar.bias": torch.full((D,), -80.0)}
    vae.load_state_dict(ae.state_dict() | logvar)
    return ae, vae


@pytest.mark.parametrize("likelihood", [likelihoods.Bernoulli(), likelihoods.Normal(0.3)])
def test_loss_and_gradients_are_those_of_a_vae_of_beta_zero_and_no_width(likelihood):
    ae, vae = make_both(likelihood)
    x = torch.rand(5, *IMAGE).round()
    losses = []
    for model in (ae, vae):
        loss, _ = model.objective(model, x, None, model.step)
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    parameters = dict(vae.named_parameters())
    for name, parameter in ae.named_parameters():
        assert parameter.grad.any(), name
        torch.testing.assert_close(parameter.grad, parameters[name].grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ae.reconstruct(x), vae.reconstruct(x))


def test_it_logs_recon_and_loss_and_no_bound(run):
    folder, metrics = run("model=ae", small=PICTURED)
    for stage in ("train", "val", "test"):
        terms = {name.split("/")[1] for name in metrics if name.startswith(f"{stage}/")}
        assert terms - {"active_units", "images_per_second"} == {"recon", "loss"}
        assert metrics[f"{stage}/loss"] == pytest.approx(metrics[f"{stage}/recon"], rel=1e-6)
    assert pictures(folder) == {"recon", "reconstructions"}
    assert not (folder / "kl_per_dim.csv").exists()
    with (folder / "metrics.csv").open(newline="") as file:
        assert not {"val/elbo", "val/kl"} & set(next(csv.reader(file)))
    assert record(folder)["bound"]["of"] is None
    assert record(folder)["bound"]["is_bound"] is False
    scores = evaluated(folder, "metrics=[elbo]")
    assert scores["recon"] == pytest.approx(metrics["test/recon"], rel=1e-6)
    assert not {"elbo", "kl"} & set(scores)


def test_the_best_is_the_least_recon(run):
    """The learning rate ruins the second epoch; the test reports the first."""
    one = run("model=ae", "trainer.max_epochs=1", folder="one")[1]
    two = run("model=ae", "+callbacks.ruin={_target_: helpers.callbacks.Ruin}", folder="two")[1]
    assert two["val/recon"] > one["val/recon"]
    assert two["best/val/recon"] == one["val/recon"]
    assert two["test/recon"] == one["test/recon"]


def test_a_resumed_run_continues_to_the_bit(run):
    chosen = ("model=ae", "corruption=mask")
    whole, _ = run(*chosen, "trainer.max_epochs=3", folder="whole")
    part, _ = run(*chosen, "trainer.max_epochs=1", "test=false", folder="part")
    resume(part, trainer__max_epochs=3, test=True)
    assert curve(part) == curve(whole)


def test_its_draws_have_no_densities():
    ae, _ = make_both(likelihoods.Bernoulli())
    with pytest.raises(ValueError, match="posterior=point has no density"):
        ae.draw(torch.rand(2, *IMAGE)).log_qz  # noqa: B018
    with pytest.raises(ValueError, match="prior=none has no kl and no elbo"):
        ae.draw(torch.rand(2, *IMAGE)).log_pz  # noqa: B018


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ("model=ae objective=elbo", "leave prior=none objective=recon, or choose model=vae"),
        ("model=ae prior=standard_normal", "leave prior=none objective=recon, or choose model=vae"),
        ("prior=none objective=recon", "prior=none has no kl and no elbo: choose model=ae"),
        ("posterior=point", "posterior=point has no density: choose model=ae"),
    ],
)
def test_what_is_no_autoencoder_is_told_the_model_to_choose(chosen, named):
    with pytest.raises(ConfigError, match=named):
        build(composed(*SMALL, *chosen.split()))


def test_it_has_neither_samples_nor_a_marginal():
    ae, _ = make_both(likelihoods.Bernoulli())
    with pytest.raises(ValueError, match="so no prior, no elbo and no log"):
        ae.sample(2)
    with pytest.raises(ValueError, match="choose model=vae"):
        ae.log_marginal(torch.rand(2, *IMAGE))
