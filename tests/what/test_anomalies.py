"""Scores of images: against the linear-Gaussian model, brute force and each other."""

import csv
from math import isfinite, sqrt

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.linear import Affine, Flat, exact, exact_terms, make
from helpers.runs import composed, generated
from PIL import Image

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.objectives import ELBO
from vae_exp.runs.trained import restore
from vae_exp.training.job import train
from vae_exp.what.anomalies import _score_all, score_each

pytestmark = pytest.mark.usefixtures("drawn")


def read(folder):
    with np.load(folder / "images/anomalies/anomalies.npz") as file:
        return dict(file)


def test_scores_of_a_linear_model_are_the_exact_ones():
    torch.manual_seed(0)
    model = make(Flat(6, 5), Affine(2, 6), ELBO(), scale=0.6).eval().requires_grad_(False)
    x = torch.randn(1, 1, 1, 6).double().expand(200, 1, 1, 6)  # replicates
    recon, kl = exact_terms(model, x[:1])
    expected = {"elbo": -recon - kl, "recon": -recon, "iwae": exact(model, x[:1])[0]}
    for name, value in expected.items():
        scores = score_each(model, x, name, 500)
        error = scores.std() / sqrt(len(x))
        assert error < 0.02
        # The log of a mean lies below that of the truth by half the variance of the mean.
        bias = float(scores.var()) if name == "iwae" else 0
        assert abs(scores.mean() - value) < 4.5 * error + bias


def test_auroc_is_the_share_of_pairs_in_order_and_half_for_the_same_data(run):
    folder, _ = run("data.num_classes=2")
    numbers = generated(folder, "anomalies", f"against='{folder}'")
    assert numbers["auroc"] == 0.5
    other, _ = run("data.num_classes=2", "data.seed=7", folder="other")
    numbers = generated(folder, "anomalies", f"against='{other}'", "num_images=40")
    arrays = read(folder)
    own, against = arrays["score"][:, None], arrays["score_against"]
    assert own.size == numbers["num_images"]
    assert numbers["auroc"] == pytest.approx(((own > against) + 0.5 * (own == against)).mean(), abs=1e-9)
    assert numbers["auroc"] != 0.5
    assert numbers["score"] == pytest.approx(own.mean())
    assert numbers["score_against"] == pytest.approx(against.mean())
    assert numbers["score_against_se_images"] == pytest.approx(against.std(ddof=1) / sqrt(against.size))
    with (folder / "images/anomalies/anomalies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [*own[:, 0].tolist(), *against.tolist()]
    assert len({row["data"] for row in rows}) == 2
    assert numbers == generated(folder, "anomalies", f"against='{other}'", "num_images=40")


def test_the_images_shown_are_those_that_score_lowest(run):
    folder, _ = run("data.eval_batch_size=7")
    trained = restore(folder, accelerator="cpu", progress=False)
    x, y = trained.images(45)
    scored = _score_all(trained, lambda x, *_: x.flatten(1).sum(1).double(), "x", 45)
    assert scored.scores.equal(x.flatten(1).sum(1).double())
    assert scored.y.equal(y)
    assert scored.numbers.equal(trained.chosen(45))
    assert scored.worst.equal(x[scored.scores.argsort()[:20]])


def test_other_data_by_name_are_represented_as_the_runs(run):
    folder, _ = run("likelihood=bce", "data.binarize=dynamic")
    numbers = generated(folder, "anomalies", "against=digits", "num_images=30")
    assert 0 <= numbers["auroc"] <= 1
    assert numbers["score"] != numbers["score_against"]
    folder, _ = run(folder="grey")
    for against, said in (("linear_gaussian", "its images are"), ("mnist_5k", "image_shape"), ("nothing", "kmnist")):
        with pytest.raises(ConfigError, match=f"against={against}.*{said}"):
            generated(folder, "anomalies", f"against={against}")


def test_the_likelihood_ratio_is_a_difference_and_0_against_itself(run):
    folder, _ = run()
    options = ("score=likelihood_ratio", "num_images=20")
    assert generated(folder, "anomalies", *options, f"background='{folder}'")["score"] == 0
    assert not read(folder)["score"].any()
    other, _ = run("seed=3", "latent_dim=2", folder="other")
    ratio = generated(folder, "anomalies", *options, f"background='{other}'", "num_samples=20")
    own = generated(folder, "anomalies", "score=iwae", "num_images=20", "num_samples=20")
    background = generated(other, "anomalies", "score=iwae", "num_images=20", "num_samples=20")
    assert ratio["score"] == pytest.approx(own["score"] - background["score"], rel=1e-6)
    assert ratio["score"] != 0


def test_a_background_of_other_images_is_refused(run):
    folder, _ = run()
    for i, parts in enumerate((["data.image_shape=[1,8,6]"], ["likelihood=discretized_logistic"], ["model=ae"])):
        other, _ = run(*parts, folder=f"other{i}")
        with pytest.raises(ConfigError, match=r"background=.*is a model of other images"):
            generated(folder, "anomalies", "score=likelihood_ratio", f"background='{other}'")


def test_a_conditional_model_scores_images_without_their_labels(run):
    folder, _ = run("model=cvae", "likelihood=sse")
    trained = restore(folder, accelerator="cpu", progress=False)
    x, _ = trained.images(5)
    classes = trained.model.context_dim
    each = torch.stack([trained.model.log_marginal(x, torch.full((5,), k), 3000) for k in range(classes)])
    expected = each.exp().mean(0).log()
    torch.testing.assert_close(score_each(trained.model, x, "iwae", 3000), expected, rtol=0, atol=0.05)
    # Of the same five images: by file, whose pixels are those of the split.
    names = []
    for i, image in enumerate(x):
        Image.fromarray((255 * image[0]).round().byte().numpy()).save(folder / f"{i}.png")
        names.append(f"'{folder}/{i}.png'")
    numbers = generated(folder, "anomalies", f"input=[{','.join(names)}]", "num_samples=300")
    scores = read(folder)["score"]
    for i, file in zip(trained.chosen(5), numbers["files"].values(), strict=True):
        assert file["score"] == pytest.approx(scores[i], abs=0.5)
        assert file["share_lower"] == (scores < file["score"]).mean()


PARTS = {
    "m2": ["model=m2", "data.labelled=8"],
    "hvae": ["model=hvae", "posterior=bottom_up", "prior=top_down"],
    "flows": ["posterior=flow", "prior=flow"],
}


@pytest.mark.parametrize("name", slow_but(["m2"], PARTS))
def test_every_model_with_a_density_scores(run, name):
    folder, _ = run(*PARTS[name])
    numbers = generated(folder, "anomalies", "num_images=8", "num_samples=20")
    assert isfinite(numbers["score"])
    assert numbers["score"] < generated(folder, "anomalies", "num_images=8", "num_samples=20", "score=iwae")["score"]
    worst = read(folder)["score"]
    assert len(worst) == 8


def test_an_autoencoder_scores_by_its_reconstruction(run):
    folder, _ = run("model=ae")
    with pytest.raises(NoMeaningError, match="score=recon"):
        generated(folder, "anomalies")
    trained = restore(folder, accelerator="cpu", progress=False)
    x, _ = trained.images(16)
    expected = trained.model.draw(x).log_px.mean()
    numbers = generated(folder, "anomalies", "score=recon", "num_images=16", "num_samples=1")
    assert numbers["score"] == pytest.approx(float(expected), rel=1e-5)


def test_options_that_do_not_go_together_are_refused(run):
    folder, _ = run()
    for options, said in (
        (["score=fid"], "score=fid"),
        (["score=likelihood_ratio"], "background"),
        ([f"background='{folder}'"], "background"),
        (["num_samples=0"], "num_samples=0"),
    ):
        with pytest.raises(ConfigError, match=said):
            generated(folder, "anomalies", *options)


@pytest.mark.slow
@pytest.mark.data
def test_mnist_is_told_from_clothes_and_half_a_digit_is_filled_in_better_than_by_the_mean_image(tmp_path, real_data):
    options = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "logger=none"]
    train(composed(f"data.root={real_data}", "latent_dim=10", "test=false", *options), tmp_path / "run")
    anomalies = generated(tmp_path / "run", "anomalies", "against=fashion_mnist", "num_images=1000")
    assert anomalies["auroc"] > 0.95
    for mask in ("half", "random"):
        numbers = generated(tmp_path / "run", "inpaint", f"mask={mask}", "num_images=50", "num_samples=200")
        for method in ("pseudo_gibbs", "importance"):
            error = sum(numbers[f"error_{name}_se_images"] ** 2 for name in (method, "mean_image")) ** 0.5
            assert numbers[f"error_{method}"] < numbers["error_mean_image"] - 2 * error
            assert numbers[f"log_score_{method}"] > numbers["log_score_mean_image"]
