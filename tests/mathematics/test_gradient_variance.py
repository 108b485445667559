"""The variance of gradients: the estimators against brute force, and against what theory says of them."""

import pytest
import torch
from helpers.runs import SMALL, composed

from vae_exp.callbacks.gradients import ESTIMATORS, GradientVariance, gradient_variance
from vae_exp.config import ConfigError
from vae_exp.objectives import ELBO
from vae_exp.runs.build import build


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(composed(*SMALL))[0]


def objective(name, num_samples=2):
    return ELBO(num_samples=num_samples, **ESTIMATORS[name][1])


def test_it_is_the_trace_of_the_covariance(model):
    """Against the covariance by numpy's formula, E g^2 - (E g)^2, of gradients by backward()."""
    x, y = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.long)
    torch.manual_seed(1)
    found = gradient_variance(model, objective("pathwise"), x, y, repeats=5)
    torch.manual_seed(1)
    rows = []
    for _ in range(5):
        model.zero_grad()
        objective("pathwise")(model, x, y, model.step)[0].backward()
        parts = [*model.encoder.parameters(), *model.posterior.parameters()]
        rows.append(torch.cat([part.grad.flatten() for part in parts]))
    g = torch.stack(rows).to(torch.float64)
    expected = float(((g.square().mean(0) - g.mean(0).square()) * 5 / 4).sum())
    assert found == pytest.approx(expected, rel=1e-4)


def test_more_latents_divide_it(model):
    """The mean of K independent gradients has 1/K of the variance."""
    x, y = torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)
    torch.manual_seed(2)
    one, eight = (gradient_variance(model, objective("pathwise", k), x, y, repeats=150) for k in (1, 8))
    assert one / eight == pytest.approx(8, rel=0.35)


def test_the_baseline_and_the_path_reduce_it(model):
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
    torch.manual_seed(3)
    score, baseline, pathwise = (
        gradient_variance(model, objective(name), x, y, repeats=40) for name in ("score", "baseline", "pathwise")
    )
    assert score > 5 * baseline > 5 * pathwise


def test_one_gradient_has_no_variance():
    with pytest.raises(ConfigError, match="repeats=1"):
        GradientVariance(repeats=1)


def test_training_is_the_same_with_it(run):
    words = "+callbacks.gradients={_target_: vae_exp.callbacks.GradientVariance, num_images: 4, repeats: 2}"
    scores = (
        "+callbacks.scores={_target_: vae_exp.callbacks.Scores, every: 1, unit: nats, draw: {amortisation_gap: gap},"
        " metrics: {amortisation: {num_images: 3, steps: 1, num_samples: 4}}}"
    )
    folder, with_it = run(words, scores, folder="with")
    _, without = run(folder="without")
    assert with_it["test/elbo"] == without["test/elbo"]
    assert {path.stem for path in (folder / "images").glob("*.png")} >= {"gradient_variance", "scores"}
    assert with_it["val/gradient_variance_score"] > with_it["val/gradient_variance_pathwise"]
