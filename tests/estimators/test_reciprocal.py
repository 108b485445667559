"""log p(x) from posterior samples, against a model whose log p(x) is known, and on a run."""

import pytest
import torch
from helpers.linear import exact, make_at
from helpers.runs import evaluated

from vae_exp.estimators.annealing import Bridge
from vae_exp.estimators.reciprocal import reciprocal_sampling

WRONG = ([0.5, -0.5], [[1.3, 0.0], [0.3, 0.8]])  # a posterior that is off the true one, which is not used

LINEAR = """
data=linear_gaussian data.image_shape=[1,1,6] data.train_size=64 data.source.val_size=8 data.source.test_size=8
data.batch_size=16 latent_dim=2 encoder=linear decoder=linear likelihood=sse init=normal init.std=0.1
trainer.accelerator=cpu trainer.max_epochs=1 trainer.enable_progress_bar=false logger=csv report=false
callbacks.pictures=null callbacks.curves=null data.source.noise=1
"""
LINEAR = tuple(LINEAR.split())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_one_over_p_of_x_is_unbiased_and_the_error_is_that_of_the_fit():
    """The true posterior is normal; with M chains q misses it by about D (D + 3) / 4 M nats."""
    model, x = make_at(*WRONG)
    true, _ = exact(model, x)
    draw = model.draw(x.expand(200, -1, -1, -1))  # a replicate each
    bridge = Bridge(draw.log_prior, draw.log_likelihood)
    estimate, acceptance = reciprocal_sampling(bridge, draw.sample_prior(40), 30, 6, 3)
    off = estimate.log_px - true
    assert off.dtype == torch.float64
    assert acceptance.mean().item() == pytest.approx(0.65, abs=0.1)
    ratio = (-off).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error
    assert off.abs().mean() < 0.2
    assert estimate.variance.mean().item() == pytest.approx(off.var().item(), rel=0.3)


def test_a_posterior_that_is_no_normal_is_integrated_too():
    """p(z) = N(0, 1) and p(x | z) = sigmoid(2 z), skewed; p(x) = 1/2 by symmetry."""
    bridge = Bridge(lambda z: -0.5 * (z.square().sum(-1) + 1.8378771), lambda z: (2 * z).sigmoid().log().sum(-1))
    estimate, _ = reciprocal_sampling(bridge, torch.randn(100, 50, 1).double(), 30, 8, 5)
    assert estimate.log_px.exp().mean().item() == pytest.approx(0.5, abs=0.03)


def test_no_chain_stays_behind_in_a_mode_without_mass():
    """p(z) = N(0, 1); p(x | z) has a peak at 1.5, and one at -1.5 that is e^30 times lower, where half would stay."""
    width = 0.05

    def log_likelihood(z):
        low, high = (-0.5 * ((z[..., 0] - at) / width).square() for at in (-1.5, 1.5))
        return torch.logaddexp(low - 30, high)

    bridge = Bridge(lambda z: -0.5 * (z.square().sum(-1) + 1.8378771), log_likelihood)
    estimate, _ = reciprocal_sampling(bridge, torch.randn(100, 20, 1).double(), 60, 8, 5)
    grid = torch.linspace(-6, 6, 200_001).double()[:, None]
    true = torch.trapezoid((bridge.log_prior(grid) + log_likelihood(grid)).exp(), grid[:, 0]).log().item()
    assert estimate.log_px.mean().item() == pytest.approx(true, abs=0.05)


def test_too_few_chains_are_refused():
    bridge = Bridge(lambda z: -z.square().sum(-1), lambda z: -z.square().sum(-1))
    with pytest.raises(ValueError, match=r"7 chains: .* 8 or more are needed for 3 latents"):
        reciprocal_sampling(bridge, torch.randn(7, 1, 3))


def test_the_metric_agrees_with_the_closed_form_and_with_importance_sampling(run):
    folder, _ = run(small=LINEAR)
    numbers = evaluated(
        folder, "metrics=[hmc]", "hmc.chains=50", "hmc.temperatures=50", "hmc.num_images=5", "num_samples=5000"
    )
    assert numbers["nll_hmc_5_images"] == pytest.approx(numbers["nll_is_5_images"], abs=0.2)
    assert 0.4 < numbers["hmc_acceptance"] < 0.9
