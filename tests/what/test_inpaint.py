"""Missing pixels against the conditional of the linear-Gaussian model, which is known in closed form."""

import json
from math import isfinite, sqrt

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.linear import Affine, Flat, make
from helpers.runs import SMALL, composed, generated
from PIL import Image
from scipy import stats

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.objectives import ELBO
from vae_exp.runs.build import build
from vae_exp.runs.trained import Trained, restore
from vae_exp.what.errors import squared_error
from vae_exp.what.inpaint import inpaint
from vae_exp.what.missing import Missing, make_mask

pytestmark = pytest.mark.usefixtures("drawn")
N, REPEATS = 6, 40
KNOWN = torch.tensor([True, False, True, True, False, False]).view(1, 1, 1, N)
QUICK = ("num_images=6", "num_chains=2", "burn_in=2", "num_steps=3", "num_samples=7")


@pytest.fixture
def linear():
    """A model with a posterior that is wrong, one image, and mean and log density of p(x_mis | x_known)."""
    torch.manual_seed(0)
    model = make(Flat(N, 5), Affine(2, N), ELBO(), scale=0.6).eval().requires_grad_(False)
    x = torch.randn(1, 1, 1, N, dtype=torch.double)
    w, b = model.decoder.weight.numpy(), model.decoder.bias.numpy()
    cov, k, m = w @ w.T + 0.36 * np.eye(N), KNOWN.flatten().numpy(), ~KNOWN.flatten().numpy()
    gain = cov[np.ix_(m, k)] @ np.linalg.inv(cov[np.ix_(k, k)])
    pixels = x.flatten().numpy()
    mean = b[m] + gain @ (pixels[k] - b[k])
    log_p = stats.multivariate_normal(mean, cov[np.ix_(m, m)] - gain @ cov[np.ix_(k, m)]).logpdf(pixels[m])
    return (
        model,
        x,
        torch.as_tensor(mean),
        float(log_p),
        float(stats.multivariate_normal(b[k], cov[np.ix_(k, k)]).logpdf(pixels[k])),
    )


def missing_of(model, x, num_chains):
    """Replicates of one image: each has chains and latents of its own."""
    x = x.expand(REPEATS, *x.shape[1:])
    return Missing(model, x, None, KNOWN.expand(REPEATS, 1, 1, N), num_chains)


def agree(each, expected, largest_error, bias=0.0):
    """Replicates `(R, ...)` average to the truth, within 4.5 standard errors, and these are small."""
    error = each.std(0) / sqrt(len(each))
    assert (error < largest_error).all()
    assert ((each.mean(0) - expected).abs() < 4.5 * error + bias).all()


@pytest.mark.slow
def test_chains_with_acceptance_tend_to_the_conditional_however_wrong_the_posterior(linear):
    model, x, mean, log_p, _ = linear
    missing = missing_of(model, x, 20)
    missing.burn_in(20)
    missing.gibbs(50)
    filled = missing.gibbs(200)
    assert 0.1 < filled.trust.mean() < 0.9  # the posterior is wrong, not hopeless
    agree(filled.mean[:, ~KNOWN[0]], mean, 0.02)
    agree(filled.log_score, log_p, 0.02, bias=0.01)
    agree(filled.drawn[:, ~KNOWN[0]], mean, 0.2)


def test_importance_resampling_agrees_with_the_conditional(linear):
    model, x, mean, log_p, log_known = linear
    missing = missing_of(model, x, 4)
    missing.burn_in(5)
    filled, known = missing.importance(4000)
    # The bias of a ratio, and of a log, is of the order of 1 / ESS.
    bias = 1 / float(filled.trust.min())
    assert bias < 0.01
    agree(filled.mean[:, ~KNOWN[0]], mean, 0.02, bias)
    agree(filled.log_score, log_p, 0.02, bias)
    agree(filled.drawn[:, ~KNOWN[0]], mean, 0.2)
    agree(known.log_px, log_known, 0.02, bias)
    agree(missing.log_p(4000).log_px - known.log_px, log_p, 0.02, bias)
    # The stated error over draws is that of the replicates.
    assert known.variance.mean().sqrt() == pytest.approx(float(known.log_px.std()), rel=0.5)


@pytest.mark.slow
def test_the_drawn_filling_is_drawn_by_its_weight(linear):
    """Its spread is that of E[x | z] under p(z | x_known): W V W^T with V the posterior's covariance."""
    model, x, *_ = linear
    x = x.expand(4000, *x.shape[1:])
    missing = Missing(model, x, None, KNOWN.expand(4000, 1, 1, N), 2)
    w, k, m = model.decoder.weight, KNOWN.flatten(), ~KNOWN.flatten()
    cov = torch.linalg.inv(torch.eye(2) + w[k].T @ w[k] / 0.36)
    expected = (w[m] @ cov * w[m]).sum(-1)
    drawn = missing.importance(400)[0].drawn[:, ~KNOWN[0]]
    # A variance of normal numbers has the relative error sqrt(2 / n); both ways leave a few per cent of bias.
    assert (drawn.var(0) / expected - 1).abs().max() < 4.5 * sqrt(2 / 4000) + 0.05


@pytest.mark.parametrize("method", ["gibbs", "importance"])
def test_known_pixels_stay_and_missing_ones_are_not_looked_at(linear, method):
    model, x, *_ = linear
    filled = []
    for pixels in (x, torch.where(KNOWN, x, 100.0)):
        torch.manual_seed(1)
        missing = missing_of(model, pixels, 3)
        missing.burn_in(2)
        result = getattr(missing, method)(9)
        filled.append(result if method == "gibbs" else result[0])
    for name in ("mean", "drawn"):
        one, other = (getattr(each, name) for each in filled)
        assert one.equal(other)
        assert one[:, KNOWN[0]].equal(x.expand_as(one)[:, KNOWN[0]])
        assert one[:, ~KNOWN[0]].ne(x.expand_as(one)[:, ~KNOWN[0]]).all()
    assert not filled[0].log_score.equal(filled[1].log_score)


def test_masks(tmp_path):
    x = torch.zeros(200, 3, 6, 9)
    half, box = make_mask("half", 0, x), make_mask("box", 0, x)
    assert half[0, 0].sum(1).tolist() == [9, 9, 9, 0, 0, 0]
    assert (~box[0, 0]).nonzero().aminmax(dim=0)[0].tolist() == [1, 2]
    assert (~box).sum().item() == 200 * 3 * 4
    torch.manual_seed(0)
    random = (~make_mask("random", 0.3, x)).double()
    assert random.mean().item() == pytest.approx(0.3, abs=4.5 * sqrt(0.21 / random.numel()))
    assert random.std(0).min() > 0  # each image has its own
    pixels = np.full((6, 9), 255, np.uint8)
    pixels[2, 3:5] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert (~make_mask(str(tmp_path / "mask.png"), 0, x))[7, 0].nonzero().tolist() == [[2, 3], [2, 4]]


@pytest.mark.parametrize(
    ("mask", "share", "said"),
    [
        ("circle", 0.5, "choose half, random, box or a picture"),
        ("random", 0.0, "share=0.0"),
        ("wrong.png", 0.5, "has 9 by 6 pixels, the images have 8 by 8"),
        ("white.png", 0.5, "leaves no pixel missing"),
        ("junk.png", 0.5, "cannot be read as a picture"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, monkeypatch, mask, share, said):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (9, 6)).save("wrong.png")
    Image.new("L", (8, 8), 255).save("white.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(ConfigError, match=said):
        make_mask(mask, share, torch.zeros(2, 1, 8, 8))


def test_errors_are_of_the_missing_pixels_and_the_baseline_is_the_mean_training_image(run):
    folder, _ = run()
    numbers = generated(folder, "inpaint", *QUICK, "mask=box")
    trained = restore(folder, accelerator="cpu", progress=False)
    x = trained.images(6)[0].numpy()
    mean = np.concatenate([x.numpy() for x, _ in trained.batches("train")]).mean(0)
    errors = ((x - mean) ** 2)[:, :, 2:6, 2:6].mean((1, 2, 3))
    assert numbers["missing_pixels"] == 16
    assert numbers["error_mean_image"] == pytest.approx(errors.mean(), rel=1e-5)
    assert numbers["error_mean_image_se_images"] == pytest.approx(errors.std(ddof=1) / sqrt(6), rel=1e-5)
    assert "log_score_mean_image" not in numbers  # a density has none
    json.loads((folder / "images/inpaint/inpaint.json").read_text(), parse_constant=pytest.fail)
    assert numbers == generated(folder, "inpaint", *QUICK, "mask=box")
    again = generated(folder, "inpaint", *QUICK, "mask=box", "method=pseudo_gibbs", "seed=1")
    assert "error_importance" not in again
    assert again["error_pseudo_gibbs"] != numbers["error_pseudo_gibbs"]


def test_the_mean_of_bits_scores_them_as_laplace_has_it(run):
    folder, _ = run("likelihood=bce", "data.binarize=threshold")
    numbers = generated(folder, "inpaint", *QUICK)
    trained = restore(folder, accelerator="cpu", progress=False)
    x = trained.images(6)[0].numpy()[:, 0, 4:]
    train = np.concatenate([x.numpy() for x, _ in trained.batches("train")])[:, 0, 4:]
    p = (train.sum(0) + 1) / (len(train) + 2)
    assert numbers["log_score_mean_image"] == pytest.approx(stats.bernoulli(p).logpmf(x).sum((1, 2)).mean(), rel=1e-5)


PARTS = {
    "vae": [],
    "cvae": ["model=cvae"],
    "m2": ["model=m2", "data.labelled=8"],
    "hvae": ["model=hvae", "posterior=bottom_up", "prior=top_down"],
    "discrete": ["posterior=categorical", "latent_dim=8", "posterior.categories=4", "posterior.relaxed=true"],
    "flows": ["posterior=flow", "prior=flow"],
    "vamp": ["prior=vamp", "posterior=laplace"],
    "colour": ["data.image_shape=[3,8,6]", "likelihood=discretized_logistic"],
    "categorical_256": ["likelihood=categorical_256"],
    "continuous_bernoulli": ["likelihood=continuous_bernoulli", "data.dequantize=true"],
    "sigma_vae": ["likelihood=sigma_vae", "data.val_size=16"],
}


def untrained(tmp_path, *overrides):
    """What `restore` gives of a run, without the time to train it."""
    cfg = composed(*SMALL, *overrides)
    model, data = build(cfg)
    if model.likelihood.fit is not None:
        model.likelihood.scale.fill_(0.2)
    (tmp_path / "run.json").write_text("{}")
    return Trained(tmp_path, cfg, model.eval().requires_grad_(False), data, progress=False)


@pytest.mark.parametrize("name", slow_but(["m2", "discrete", "colour"], PARTS))
def test_every_model_with_a_density_fills_in(tmp_path, name):
    trained = untrained(tmp_path, *PARTS[name])
    options = {"share": 0.5, "method": "both", "num_chains": 2, "burn_in": 2, "num_steps": 3, "num_samples": 7}
    numbers = inpaint(trained, tmp_path, num_images=6, mask="random", input=None, label=None, **options)
    for method in ("pseudo_gibbs", "importance"):
        assert isfinite(numbers[f"log_score_{method}"])
        assert numbers[f"error_{method}_se_images"] > 0
    assert isfinite(numbers["log_p_missing"])
    assert (tmp_path / "inpaint.png").exists()


def test_an_autoencoder_has_no_density_of_missing_pixels(run):
    folder, _ = run("model=ae")
    with pytest.raises(NoMeaningError, match="model=vae"):
        generated(folder, "inpaint", *QUICK)
    assert not (folder / "images/inpaint").exists()


def test_options_out_of_range_are_named(run):
    folder, _ = run()
    for option in ("method=both_of_them", "num_steps=0", "num_chains=0", "num_samples=0", "label=2"):
        with pytest.raises(ConfigError, match=option):
            generated(folder, "inpaint", *QUICK, option)


@pytest.mark.parametrize(
    "parts", [["likelihood=sse"], ["likelihood=bce", "data.binarize=dynamic"]], ids=["grey", "bits"]
)
def test_files_come_out_with_their_own_pixels_around_the_hole(run, tmp_path, parts):
    folder, _ = run(*parts)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    numbers = generated(folder, "inpaint", *QUICK, f"input='{tmp_path}/a.png'")
    assert not any(name.startswith(("error", "log_")) for name in numbers)
    for method in ("pseudo_gibbs", "importance"):
        with Image.open(folder / f"images/inpaint/a_{method}.png") as image:
            filled = np.asarray(image)
        assert (filled[:4] == pixels[:4]).all()
        assert (filled[4:] != pixels[4:]).any()


def test_squared_error():
    x, image = torch.zeros(2, 3, 2, 2), torch.arange(24.0).view(2, 3, 2, 2)
    where = torch.tensor([[[[True, False], [False, False]]], [[[False, False], [True, True]]]])
    squares = image.square()
    assert squared_error(image, x).tolist() == squares.flatten(1).mean(1).tolist()
    expected = [float(squares[0, :, 0, 0].mean()), float(squares[1, :, 1].mean())]
    assert squared_error(image, x, where).tolist() == pytest.approx(expected)


def test_one_latent_has_no_error_over_draws(run):
    options = ["num_samples=1", "num_chains=1", "burn_in=1", "num_steps=1", "num_images=4"]
    numbers = generated(run()[0], "inpaint", *options)
    assert isfinite(numbers["log_p_missing"])
    assert "log_p_missing_se_draws" not in numbers
