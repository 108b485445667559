"""The sigma-VAE: one scale, at its optimum over the batch in training, over the training set in evaluation."""

from math import log, pi, sqrt

import pytest
import torch
from helpers.runs import SMALL, composed, curve, evaluated, resume
from omegaconf import OmegaConf
from scipy import optimize, stats
from torch.distributions import Independent, Normal

from vae_exp import decoders, encoders
from vae_exp.config import ConfigError
from vae_exp.likelihoods import SigmaVAE
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal
from vae_exp.runs.build import build, prepare
from vae_exp.runs.checkpoint import load_weights

IMAGE, PIXELS = (2, 3, 3), 18
SIGMA = ("likelihood=sigma_vae", "likelihood.mean=identity")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(likelihood, k=1):
    return VAE(
        encoders.MLP(IMAGE, hidden=[7], out_features=6, activation="Tanh"),
        decoders.MLP(2, IMAGE, hidden=[7], activation="Tanh"),
        DiagonalNormal(6, 2), StandardNormal(2), likelihood, ELBO(k),
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 3])
def test_in_training_it_is_a_normal_of_the_root_mean_squared_error(k):
    mu, x = torch.rand(k, 5, *IMAGE), torch.rand(5, *IMAGE)
    log_prob = SigmaVAE()(mu).log_prob(x.expand(k, -1, -1, -1, -1))
    rmse = (x - mu).double().square().mean().sqrt()
    expected = stats.norm.logpdf(x.double(), mu.double(), rmse).sum((2, 3, 4))
    torch.testing.assert_close(log_prob.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    best = optimize.minimize_scalar(
        lambda s: -stats.norm.logpdf(x, mu, s).sum(), bounds=(0.01, 2), method="bounded", options={"xatol": 1e-9}
    )  # no other scale gives the batch more
    assert rmse.item() == pytest.approx(best.x, rel=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_is_that_of_the_log_of_the_mean_squared_error(k):
    """recon = CHW / 2 (log MSE + log 2 pi + 1), differentiated through everything (Rybkin et al., 2021, eq. 5)."""
    model, x = make(SigmaVAE(), k), torch.rand(5, *IMAGE)
    gradients = []
    for by_hand in (False, True):
        model.zero_grad()
        torch.manual_seed(1)
        loss, draw = model.objective(model, x, None, model.step)
        if by_hand:
            mse = (model.decoder(draw.z.flatten(0, 1)).view(k, 5, *IMAGE) - x).square().mean()
            given, loss = loss, 0.5 * PIXELS * (mse.log() + log(2 * pi) + 1) + draw.kl.mean()
            torch.testing.assert_close(given, loss, rtol=1e-5, atol=0)
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for detached, full in zip(*gradients, strict=True):
        assert full.any()
        torch.testing.assert_close(detached, full, rtol=1e-4, atol=1e-6)


def test_the_scale_has_a_floor():
    x = torch.rand(5, *IMAGE)
    assert torch.allclose(SigmaVAE(0.1)(x).log_prob(x), Independent(Normal(x, 0.1), 3).log_prob(x))
    likelihood = SigmaVAE(0.1)
    likelihood.fit([(likelihood.eval()(x[None]), x)], lambda t: t)
    assert likelihood.scale.item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"likelihood\.min_scale=0: a scale must be positive"):
        SigmaVAE(0)


def test_fit_is_over_all_images_whatever_their_batches():
    mu, x = torch.rand(3, 10, *IMAGE), torch.rand(10, *IMAGE)
    likelihood = SigmaVAE().eval()
    assert not likelihood.is_fitted
    sizes = [6, 3, 1]
    pairs = [(likelihood(m), b) for m, b in zip(mu.split(sizes, dim=1), x.split(sizes), strict=True)]
    likelihood.fit(pairs, lambda t: t)
    assert likelihood.is_fitted
    assert likelihood.scale.item() == pytest.approx((x - mu).double().square().mean().sqrt().item(), rel=1e-6)
    plain = Independent(Normal(mu, likelihood.scale), 3)
    values = x.expand(3, *x.shape)
    torch.testing.assert_close(likelihood(mu).log_prob(values), plain.log_prob(values))


def test_other_processes_count():
    """Here the sums are doubled, as of two processes with the same images: the mean stays; and are asked for once."""
    mu, x = torch.rand(1, 10, *IMAGE), torch.rand(10, *IMAGE)
    asked = []
    likelihood = SigmaVAE().eval()
    likelihood.fit([(likelihood(mu), x)], lambda t: asked.append(t) or t + torch.tensor([3.0, 180.0]))
    assert len(asked) == 1
    total = (x - mu).double().square().sum().item()
    assert likelihood.scale.item() == pytest.approx(sqrt((total + 3) / (180 + 180)), rel=1e-6)


# --- Runs ---------------------------------------------------------------------------------------------------------


def rmse_of_training_set(model, data):
    """Over many latents an image, and its standard error."""
    x = data.splits["train"].x / 255
    with torch.no_grad():
        squares = (x - model.eval().draw(x, num_samples=200).px.mean).double().square().mean((2, 3, 4))  # (K, B)
    mean = squares.mean()
    error = squares.std(0).square().sum().sqrt() / len(x)  # of the mean over images, at one latent each
    return mean.sqrt().item(), (error / (2 * mean.sqrt())).item()


def scale_of(folder, name):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]["likelihood.scale"]


def test_checkpoints_hold_the_scale_of_the_training_set_under_their_weights(run):
    folder, _ = run(*SIGMA, "optimizer.lr=0.01", "trainer.max_epochs=6")
    model, data = build(OmegaConf.load(folder / "config.yaml"))
    prepare(data)
    for name in ("best", "last"):
        load_weights(model, folder / "checkpoints" / f"{name}.ckpt")
        rmse, error = rmse_of_training_set(model, data)
        assert error < 0.02 * rmse
        assert model.likelihood.scale.item() == pytest.approx(rmse, abs=4 * error)
        # To the digit with the latents that it was fitted at.
        squares, count = 0.0, 0
        with torch.no_grad():
            for x, y in data.training_images():
                squares += (x - model.draw(x, y).px.mean).double().square().sum().item()
                count += x.numel()
        assert count == 48 * 64
        assert model.likelihood.scale.item() == pytest.approx(sqrt(squares / count), rel=1e-6)


def test_the_elbo_is_that_of_a_normal_of_its_scale_and_evaluation_leaves_it(run):
    folder, metrics = run(*SIGMA, "trainer.max_epochs=3")
    scale = scale_of(folder, "best").item()
    assert 0 < scale < 0.5
    scores = evaluated(folder, "metrics=[elbo]")
    assert scores["elbo"] == pytest.approx(metrics["test/elbo"], rel=1e-6)
    assert scale_of(folder, "best").item() == scale
    # The same weights with likelihood=sse: a folder whose config says so.
    cfg = OmegaConf.load(folder / "config.yaml")
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    del state["state_dict"]["likelihood.scale"]
    torch.save(state, folder / "checkpoints" / "best.ckpt")
    cfg.likelihood = composed(*SMALL, "likelihood=sse", f"likelihood.scale={scale!r}").likelihood
    OmegaConf.save(cfg, folder / "config.yaml")
    for split, elbo in (("test", metrics["test/elbo"]), ("val", metrics["best/val/elbo"])):
        plain = evaluated(folder, "metrics=[elbo]", f"split={split}")
        assert plain["elbo"] == pytest.approx(elbo, rel=1e-6)


def test_a_resumed_run_continues_to_the_bit(run):
    whole, _ = run(*SIGMA, "trainer.max_epochs=4", folder="whole")
    part, _ = run(*SIGMA, "trainer.max_epochs=2", "test=false", folder="part")
    resume(part, trainer__max_epochs=4, test=True)
    assert curve(part) == curve(whole)
    assert scale_of(part, "last") == scale_of(whole, "last")


def test_fitting_does_not_touch_training(run):
    """Validating twice as often leaves the same weights."""
    once, twice = (
        torch.load(run(*SIGMA, *options, folder=name)[0] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name, options in (("once", ()), ("twice", ("trainer.val_check_interval=1",)))
    )
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_without_a_validation_there_is_no_scale_and_the_run_says_so(run, tmp_path):
    with pytest.raises(ConfigError, match=r"SigmaVAE is fitted .* set trainer\.limit_val_batches=null"):
        run(*SIGMA, "trainer.limit_val_batches=0", folder="never")
    with pytest.raises(ConfigError, match=r"SigmaVAE is fitted .* there was none: train up to the first one"):
        run(*SIGMA, "trainer.max_steps=2", folder="short")  # of the three of an epoch
    for split in ("val", "test"):
        with pytest.raises(ConfigError, match="there was none"):
            evaluated(tmp_path / "short", "checkpoint=last", f"split={split}")


def test_parts_that_fit_leave_it_unfitted():
    model, _ = build(composed(*SMALL, *SIGMA))
    assert not model.likelihood.is_fitted
