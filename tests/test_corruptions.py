"""Corruptions: their statistics, that evaluation is clean, and that the clean image is what is scored."""

from itertools import product
from math import sqrt

import pytest
import torch
from helpers.runs import SMALL, composed
from scipy import stats

from vae_exp import corruptions, decoders, encoders, likelihoods
from vae_exp.models import M2, VAE
from vae_exp.objectives import ELBO, SemiSupervised
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal, Vamp
from vae_exp.runs.build import build

IMAGE = (2, 3, 3)
CORRUPTIONS = {"gaussian": lambda: corruptions.Gaussian(0.3), "mask": lambda: corruptions.Mask(0.25)}
each = pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(corruption, prior=None, image=IMAGE):
    return VAE(
        encoders.MLP(image, hidden=[7], out_features=6), decoders.MLP(2, image, hidden=[7]), DiagonalNormal(6, 2),
        prior or StandardNormal(2), likelihoods.Bernoulli(), ELBO(), corruption=corruption,
    )  # fmt: skip


def seen_by_encoder(model, x, call="draw"):
    """What the encoder is shown."""
    seen = []
    handle = model.encoder.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    getattr(model, call)(x)
    handle.remove()
    return seen[0]


def test_gaussian_noise_is_normal_of_its_scale_and_new_at_every_pixel():
    x = torch.rand(4000, *IMAGE)
    noise = (corruptions.Gaussian(0.3)(x) - x).double()
    assert stats.kstest(noise.flatten()[:20_000].numpy() / 0.3, "norm").pvalue > 1e-3
    assert (noise.flatten(1).T.corrcoef() - torch.eye(18)).abs().max() < 5 / sqrt(4000)


def test_a_mask_takes_a_share_of_the_pixels_all_channels_of_one_together():
    x = torch.rand(20_000, *IMAGE) + 0.1
    masked = corruptions.Mask(0.25)(x)
    gone = masked == 0
    assert torch.equal(masked[~gone], x[~gone])
    assert torch.equal(gone[:, 0], gone[:, 1])
    by_pixel = gone[:, 0].flatten(1).double()
    assert ((by_pixel.mean(0) - 0.25).abs() < 4 * sqrt(0.25 * 0.75 / 20_000)).all()
    assert (by_pixel.T.corrcoef() - torch.eye(9)).abs().max() < 5 / sqrt(20_000)  # each on its own


@each
def test_evaluation_is_clean(corruption):
    model, x = make(corruption()), torch.rand(5, *IMAGE)
    assert not torch.equal(seen_by_encoder(model, x), x)
    assert not torch.equal(seen_by_encoder(model, x, "encode"), x)
    model.eval()
    for call in ("draw", "encode", "reconstruct"):
        assert torch.equal(seen_by_encoder(model, x, call), x)


@each
def test_the_clean_image_is_scored(corruption):
    model, x = make(corruption()), torch.rand(5, *IMAGE).round()
    draw = model.draw(x)
    logits = model.decoder(draw.z[0]).double()
    expected = (logits * x - torch.nn.functional.softplus(logits)).sum((1, 2, 3))
    torch.testing.assert_close(draw.log_px[0].double(), expected, rtol=1e-5, atol=1e-5)


@each
@torch.no_grad()
def test_an_elbo_under_corruption_bounds_log_px_of_the_clean_image(corruption):
    """For any q(z | corrupted x); log p(x) of all sixteen images by a grid."""
    image, samples = (1, 2, 2), 2000
    model = make(corruption(), image=image)
    for weight in model.parameters():
        weight *= 3
    x = torch.tensor(list(product([0.0, 1.0], repeat=4))).view(16, *image)
    side = torch.linspace(-9, 9, 181)
    z = torch.cartesian_prod(side, side)[:, None].expand(-1, 16, -1)
    grid = model.draw(x, z=z)
    log_px = (grid.log_px + grid.log_pz).double().logsumexp(0) + 2 * (side[1] - side[0]).double().log()
    assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-4)
    for mode in (True, False):
        model.train(mode)
        # A corruption of its own for each sample.
        draw = model.draw(x.repeat(samples, 1, 1, 1))
        elbo = (draw.log_px[0] - draw.kl).view(samples, 16).double()
        assert (elbo.mean(0) < log_px + 4 * elbo.std(0) / sqrt(samples)).all()


@each
def test_pseudo_inputs_of_a_prior_are_not_corrupted(corruption):
    """They are parameters, no images: the prior would be another one at every step."""
    model = make(corruption(), Vamp(IMAGE, pseudo_inputs=5))
    z = torch.randn(4, 2)
    once, again = (model.prior().log_prob(z) for _ in range(2))
    assert torch.equal(once, again)
    model.eval()
    assert torch.equal(model.prior().log_prob(z), once)


@each
def test_the_classifier_of_m2_sees_corrupted_images_in_training_alone(corruption):
    classes = 3
    model = M2(
        encoders.MLP(IMAGE, classes, hidden=[7], out_features=6), decoders.MLP(2, IMAGE, classes, hidden=[7]),
        DiagonalNormal(6, 2), StandardNormal(2), likelihoods.Bernoulli(), SemiSupervised(0.1), context_dim=classes,
        corruption=corruption(), classifier=encoders.MLP(IMAGE, hidden=[7], out_features=6), classifier_features=6,
    )  # fmt: skip
    x = torch.rand(4, *IMAGE)
    assert not torch.equal(model.classify(x), model.classify(x))
    model.eval()
    assert torch.equal(model.classify(x), model.classify(x))


@pytest.mark.parametrize("name", ["gaussian", "mask"])
def test_a_denoising_autoencoder_trains_on_other_images_and_is_evaluated_on_clean_ones(run, name):
    options = ("model=ae", "optimizer.lr=0")
    clean = run(*options, folder="clean")[1]
    noisy = run(*options, f"corruption={name}", folder="noisy")[1]
    assert noisy["train/recon"] != clean["train/recon"]
    assert noisy["val/recon"] == clean["val/recon"]
    assert noisy["test/recon"] == clean["test/recon"]


def test_none_is_the_identity():
    model, _ = build(composed(*SMALL))
    x = torch.rand(3, 1, 8, 8)
    assert model.corruption(x) is x


@pytest.mark.parametrize(
    ("named", "make"),
    [
        (r"corruption\.scale=0", lambda: corruptions.Gaussian(0)),
        (r"corruption\.share=0", lambda: corruptions.Mask(0)),
        (r"corruption\.share=1", lambda: corruptions.Mask(1)),
    ],
)
def test_what_corrupts_nothing_or_everything_is_named(named, make):
    with pytest.raises(ValueError, match=named):
        make()
