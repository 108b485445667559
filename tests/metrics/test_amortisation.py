"""The gaps of the ELBO on the linear-Gaussian model, where the best posterior of each family is known."""

import json

import pytest
import torch
from helpers.cases import slow_but
from helpers.in_memory import Known, untrained
from helpers.linear import Affine, Given, exact, features, full_normal, make
from helpers.runs import evaluated
from torch.distributions import kl_divergence

from vae_exp.config import NoMeaningError
from vae_exp.estimators.importance import _Sizes
from vae_exp.metrics.amortisation import _log_w, amortisation, refine
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.runs.trained import restore

N, D = 5, 2
OPTIONS = {"num_images": 100, "steps": 400, "lr": 0.1, "num_latents": 8, "num_samples": 2000}
SHORT = {"num_images": 4, "steps": 2, "lr": 0.01, "num_latents": 2, "num_samples": 10}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def plain(posterior):
    """A diagonal normal whose features are its mean and log variances."""
    with torch.no_grad():
        for head, rows in ((posterior.mu, torch.eye(2 * D)[:D]), (posterior.logvar, torch.eye(2 * D)[D:])):
            head.weight.copy_(rows)
            head.bias.zero_()
    return posterior


def wrong(family):
    """A model whose encoder gives every image the same posterior, images of it, and the gap of its best posterior.

    The best diagonal normal has the mean of the true posterior and the inverse diagonal of its precision P: its KL is
    `1/2 (sum_d log P_dd - log det P)` (Bishop, 2006, section 10.1).
    """
    decoder = Affine(D, 4)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[1.0, 0.7], [0.2, 0.9], [-0.5, 0.3], [0.4, 0.8]]))
    if family == "full":
        h, posterior = features(torch.tensor([0.5, -0.3]), torch.tensor([[1.2, 0.0], [0.3, 0.4]])), full_normal()
    else:
        h, posterior = torch.tensor([[0.5, -0.3, 0.2, -1.0]]), plain(DiagonalNormal(2 * D, D))
    model = make(Given(h), decoder, ELBO(), posterior=posterior)
    x = model.decode(torch.randn(N, D).double()).sample()
    _, true = exact(model, x)
    precision = true.precision_matrix[0]
    best = 0.0 if family == "full" else (precision.diagonal().log().sum() - precision.logdet()).item() / 2
    return Known(model, x), true, best


def joint(q):
    """A diagonal normal as one with a full covariance, of which torch knows the KL."""
    return q if hasattr(q, "scale_tril") else torch.distributions.MultivariateNormal(q.mean, q.variance.diag_embed())


@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_refinement_reaches_the_best_posterior_of_the_family(family):
    run, true, best = wrong(family)
    draw = run.model.draw(run.x)
    before = kl_divergence(joint(draw.q), true)
    q = refine(draw, run.model.posterior, run.model.encoder(run.x), 400, 0.1, 8)
    after = kl_divergence(joint(q), true)
    assert (before > best + 0.5).all()
    assert (after - best).abs().max() < 0.01
    assert best == 0.0 or best > 0.1  # a family that has it, and one that has not
    torch.testing.assert_close(q.mean, true.mean, atol=0.02, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_gaps_are_those_of_the_closed_form(family):
    """The elbo is log p(x) - KL(q || p(z | x)): one gap is the KL of the encoder less the best, the other the best."""
    run, true, best = wrong(family)
    log_px, _ = exact(run.model, run.x)
    before = kl_divergence(joint(run.model.encode(run.x)), true)
    numbers = amortisation(run, **OPTIONS)
    for name, expected in (("amortisation_gap", before - best), ("approximation_gap", torch.full((N,), best))):
        error = numbers[f"{name}_5_images_se_draws"]
        # Refinement ends a little short of the best.
        assert abs(numbers[f"{name}_5_images"] - expected.mean().item()) < 4 * error + 0.005, name
        assert error < 0.02 * before.mean()
    spread = before.std().item() / N**0.5
    assert numbers["amortisation_gap_5_images_se_images"] == pytest.approx(spread, rel=0.05)
    assert abs(numbers["elbo_refined_5_images"] - (log_px.mean().item() - best)) < 0.02
    assert set(numbers) == {
        "elbo_refined_5_images",
        *(f"{a}_gap_5_images{b}" for a in ("amortisation", "approximation") for b in ("", "_se_images", "_se_draws")),
    }


def given(run, true, scale):
    """The run with the true posteriors for an encoder, their factor times `scale`; all images in one batch."""
    rows = [features(mean, scale * true.scale_tril[0])[0] for mean in true.mean]
    run.model.encoder = Given(torch.stack(rows))
    run.batches = lambda num_images: iter([(run.x, torch.zeros(N).long())])


def test_errors_over_draws_are_those_of_repeated_scoring():
    """Of a refinement that does next to nothing, from posteriors so wide that no weight is large."""
    run, true, _ = wrong("full")
    given(run, true, 1.2)
    results = []
    for run.seed in range(60):
        results.append(amortisation(run, **OPTIONS | {"steps": 1, "lr": 1e-12, "num_samples": 200}))
    gaps = torch.tensor([numbers["approximation_gap_5_images"] for numbers in results])
    error = sum(numbers["approximation_gap_5_images_se_draws"] for numbers in results) / len(results)
    assert gaps.std().item() == pytest.approx(error, rel=0.4)  # four standard errors of a standard deviation of 60
    expected = kl_divergence(run.model.encode(run.x), true).mean().item()
    assert abs(gaps.mean().item() - expected) < 4 * error / 60**0.5 + 0.001  # a log of a mean lies low by 1 / K or so
    assert all(numbers["amortisation_gap_5_images"] == pytest.approx(0, abs=1e-9) for numbers in results)


def test_nothing_is_gained_where_the_encoder_is_right():
    run, true, _ = wrong("full")
    given(run, true, 1.0)
    numbers = amortisation(run, **OPTIONS)
    assert abs(numbers["amortisation_gap_5_images"]) < 0.005
    assert abs(numbers["approximation_gap_5_images"]) < 0.005


def test_images_do_not_mix_and_nothing_of_the_model_changes():
    """The refined posterior of an image does not hang on the images beside it."""
    run, true, _ = wrong("full")
    state = {name: value.clone() for name, value in run.model.state_dict().items()}
    one = refine(run.model.draw(run.x[:1]), run.model.posterior, run.model.encoder(run.x[:1]), 400, 0.1, 8)
    torch.testing.assert_close(one.mean, true.mean[:1], atol=0.02, rtol=0)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(parameter.grad is None for parameter in run.model.parameters())


CASES = {
    "vae": (),
    "laplace": ("posterior=laplace",),
    "flow": ("posterior=flow", "posterior.hidden=[8]"),
    "mixture": ("prior=mixture",),
    "vamp": ("prior=vamp", "prior.pseudo_inputs=20"),
    "flow prior": ("prior=flow", "prior.hidden_features=[8]"),
    "cvae mixture": ("model=cvae", "prior=mixture"),
    "hvae": ("model=hvae", "model.upper_dims=[2]"),
}


@pytest.mark.parametrize("case", slow_but(["vae", "cvae mixture"], CASES))
def test_every_model_with_a_gradient(case, tmp_path):
    trained = untrained(tmp_path, *CASES[case])
    options = SHORT | {"steps": 60, "lr": 0.05, "num_latents": 4, "num_samples": 200}
    numbers = amortisation(trained, **options)
    json.dumps(numbers, allow_nan=False)
    assert amortisation(trained, **options) == numbers
    error = numbers["amortisation_gap_4_images_se_draws"]
    assert numbers["amortisation_gap_4_images"] > -4 * error
    assert numbers["approximation_gap_4_images"] > 0  # log of a mean above the mean of logs


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("model=ae",), "choose model=vae"),
        (("model=m2",), "infers the label"),
        (("posterior=bernoulli", "objective.kl=monte_carlo", "objective.estimator=score_function"), "no pathwise"),
    ],
    ids=["ae", "m2", "discrete"],
)
def test_what_has_no_meaning_is_refused(overrides, reason, tmp_path):
    with pytest.raises(NoMeaningError, match=reason):
        amortisation(untrained(tmp_path, *overrides), **SHORT)


@pytest.mark.slow
def test_a_refinement_that_blows_up_is_no_number():
    with pytest.raises(NoMeaningError, match="no finite elbo"):
        amortisation(wrong("full")[0], **OPTIONS | {"lr": 1e6})


def test_evaluate_gives_them_with_their_count(run):
    folder, _ = run()
    numbers = evaluated(folder, "metrics=[amortisation]", "num_samples=20", "amortisation.num_images=8")
    assert "amortisation_gap_8_images" in numbers
    assert json.loads((folder / "evaluation.json").read_text())["refused"] == {}


def test_one_latent_is_too_few_and_no_fault_of_the_learning_rate(run):
    with pytest.raises(NoMeaningError, match="two latents of two images"):
        evaluated(run()[0], "metrics=[amortisation]", "num_samples=1", "amortisation.steps=1")


def test_scoring_takes_no_more_memory_where_a_pixel_has_256_params(run, monkeypatch):
    trained = restore(run("data.binarize=none", "likelihood=categorical_256")[0], accelerator="cpu", progress=False)
    draw = trained.model.draw(*trained.images(4))
    monkeypatch.setattr("vae_exp.metrics.amortisation.CHUNK", 2**18)  # of a latent of the 4 images: 2**16
    with _Sizes() as sizes:
        log_w = _log_w(draw, draw.q, 50)
    assert log_w.shape == (50, 4)
    assert sizes.most <= 2**18
