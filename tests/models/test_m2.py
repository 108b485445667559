"""The semi-supervised VAE: its bounds by brute force, its loss by equation 9, its batches by enumeration."""

from itertools import combinations, product
from math import log, sqrt

import pytest
import torch
import torch.nn.functional as F
from helpers.m2 import CLASSES, B, D, K, make, make_batch
from helpers.runs import PICTURED, SMALL, composed, curve, evaluated, pictures, resume
from omegaconf import OmegaConf
from torch import nn

from vae_exp.config import ConfigError
from vae_exp.models import CVAE
from vae_exp.objectives import ELBO, SemiSupervised
from vae_exp.priors import Mixture
from vae_exp.runs.build import build, prepare
from vae_exp.runs.checkpoint import load_weights
from vae_exp.schedules import Linear

num_samples = pytest.mark.parametrize("k", [1, K])
NONE = torch.full((B,), -1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def without_noise(model):
    """Next to no width in the posterior: what an image adds to the loss hangs on the image alone."""
    nn.init.zeros_(model.posterior.logvar.weight)
    nn.init.constant_(model.posterior.logvar.bias, -60.0)
    return model


@torch.no_grad()
def by_class(model, x, z):
    """`-recon` and kl of every image with every class, `(Y, B)`, one by one; z `(K, Y, B, D)`."""
    log_px, kl = torch.zeros(2, CLASSES, len(x))
    for label, b in product(range(CLASSES), range(len(x))):
        c = F.one_hot(torch.tensor([label]), CLASSES).float()
        h = model.encoder(x[b : b + 1], c)
        mu, logvar = model.posterior.mu(h), model.posterior.logvar(h)
        logits = model.decoder(z[:, label, b], c.expand(len(z), -1))
        log_px[label, b] = (logits * x[b] - F.softplus(logits)).sum((1, 2, 3)).mean()
        kl[label, b] = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    return log_px, kl


# --- The bounds and the loss --------------------------------------------------------------------------------------


@num_samples
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_with_every_label_it_is_a_cvae_and_a_classifier(k, alpha):
    model, cvae = make(SemiSupervised(alpha, num_samples=k)), make(ELBO(k), cls=CVAE)
    cvae.load_state_dict({name: v for name, v in model.state_dict().items() if not name.startswith("classifier")})
    x, y = make_batch()
    loss, draw = model.objective(model, x, y, model.step)
    own = draw.z.view(k, CLASSES, B, D)[:, y, torch.arange(B)]  # the noise of the given class
    expected = -cvae.draw(x, y, z=own).elbo
    torch.testing.assert_close(draw.recon + draw.kl, expected + log(CLASSES))
    cross_entropy = F.cross_entropy(model.classifier_head(model.classifier(x, None)), y)
    torch.testing.assert_close(loss, expected.mean() + log(CLASSES) + alpha * cross_entropy)


@num_samples
@pytest.mark.parametrize("training", [True, False])
def test_without_labels_it_is_the_sum_over_classes_and_the_entropy(k, training):
    model, (x, _) = make(SemiSupervised(0.7, 8, 16, num_samples=k)).train(training), make_batch()
    loss, draw = model.objective(model, x, NONE, model.step)
    log_px, kl = by_class(model, x, draw.z.view(k, CLASSES, B, D))
    q = model.classifier_head(model.classifier(x, None)).softmax(1).T.detach()
    entropy = -(q * q.log()).sum(0)
    elbo = (q * (log_px - kl + log(1 / CLASSES))).sum(0) + entropy
    torch.testing.assert_close(draw.elbo, elbo, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(draw.recon, -(q * log_px).sum(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, -elbo.mean(), rtol=1e-5, atol=1e-5)
    assert (draw.kl >= 0).all()
    means = torch.stack([model.encode(x, torch.full((B,), label)).mean for label in range(CLASSES)])
    torch.testing.assert_close(draw.z_mean, (q[:, :, None] * means).sum(0))


def test_the_variance_of_a_code_is_that_of_the_mixture_over_the_classes():
    draw = make().eval().draw(make_batch()[0])
    means, scales = (t.unflatten(0, (CLASSES, B)).double() for t in (draw.each.q.mean, draw.each.q.stddev))
    components = torch.distributions.Normal(means.movedim(0, -1), scales.movedim(0, -1))
    weights = torch.distributions.Categorical(draw.weight.double()[:, None].expand(*components.batch_shape))
    mixture = torch.distributions.MixtureSameFamily(weights, components)
    torch.testing.assert_close(draw.z_variance.double(), mixture.variance, rtol=1e-4, atol=1e-6)


def test_a_mean_that_the_posterior_does_not_know_is_one_of_draws_over_the_classes(monkeypatch):
    draw = make().eval().draw(make_batch()[0])
    known, spread = draw.mean(1), draw.each.q.stddev.unflatten(0, (CLASSES, B))
    torch.testing.assert_close(known, draw.z_mean)
    monkeypatch.setattr(type(draw.each.q), "mean", property(unknown))
    error = (draw.weight.T[:, :, None] * spread).square().sum(0).sqrt() / sqrt(10_000)
    assert ((draw.mean(10_000) - known).abs() < 5 * error).all()
    assert not torch.equal(draw.mean(10_000), known)


def unknown(q):
    raise NotImplementedError


def test_a_mixed_batch_is_each_image_by_its_own_bound():
    model = make(SemiSupervised(0.7, labelled=6, train_size=15))
    x, y = make_batch()
    mixed = torch.where(torch.tensor([True, False, False, True, False]), y, -1)
    model = without_noise(model)
    loss, draw = model.objective(model, x, mixed, model.step)
    given, missing = (model.draw(x, labels) for labels in (y, NONE))
    is_given = mixed >= 0
    for term in ("recon", "kl", "elbo"):
        expected = torch.where(is_given, getattr(given, term), getattr(missing, term))
        torch.testing.assert_close(getattr(draw, term), expected, rtol=1e-5, atol=1e-5)
    # Both kinds have the weight 1, for they come as they are in the set; the cross-entropy 15 / 6 a label.
    ce = F.cross_entropy(model.classifier_head(model.classifier(x, None)), y, reduction="none")[is_given]
    torch.testing.assert_close(loss, -draw.elbo.mean() + 0.7 * ce.sum() / B * 15 / 6, rtol=1e-5, atol=0)


def test_alpha_may_follow_a_schedule():
    model, (x, y) = without_noise(make()), make_batch()
    losses = [SemiSupervised(a)(model, x, y, torch.tensor(25))[0] for a in (Linear(0.0, 4.0, 100), 1.0, 0.0)]
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0] > losses[2] + 0.5


@torch.no_grad()
def test_both_bounds_hold_against_a_likelihood_that_sums_to_one():
    """log p(x) and log p(x, y) of all sixteen images by a grid over z."""
    image, samples = (1, 2, 2), 1000
    model = make(image=image)
    for weight in model.parameters():
        weight *= 3
    x = torch.tensor(list(product([0.0, 1.0], repeat=4))).view(16, *image)
    side = torch.linspace(-9, 9, 181)
    z = torch.cartesian_prod(side, side)
    log_pz = model.prior().log_prob(z).double() + 2 * (side[1] - side[0]).double().log()
    log_joint = []  # of x and y
    for label in range(CLASSES):
        logits = model.decoder(z, F.one_hot(torch.tensor([label]), CLASSES).float().expand(len(z), -1))
        log_px = (logits.flatten(1) @ x.flatten(1).T - F.softplus(logits).flatten(1).sum(1, keepdim=True)).double()
        log_joint.append((log_px + log_pz[:, None]).logsumexp(0) - log(CLASSES))
    log_joint = torch.stack(log_joint)
    log_px = log_joint.logsumexp(0)
    assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-4)
    repeated = x.repeat(samples, 1, 1, 1)
    for label in (-1, *range(CLASSES)):
        elbo = model.draw(repeated, torch.full((16 * samples,), label)).elbo.view(samples, 16).double()
        truth = log_px if label == -1 else log_joint[label]
        assert (elbo.mean(0) < truth + 4 * elbo.std(0) / sqrt(samples)).all()
        assert (elbo.mean(0) > truth - 20).all()


# --- Gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["all", "none", "some"])
def test_gradients_reach_classifier_encoder_decoder_and_prior(labels):
    model = make(SemiSupervised(0.1, 8, 16), prior=Mixture(D, 2, CLASSES))
    x, y = make_batch(16)
    y = {"all": y, "none": torch.full_like(y, -1), "some": torch.where(torch.arange(16) < 8, y, -1)}[labels]
    model.objective(model, x, y, model.step)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_without_alpha_a_label_teaches_the_classifier_nothing():
    model, (x, y) = make(SemiSupervised(0.0)), make_batch()
    model.objective(model, x, y, model.step)[0].backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.classifier.parameters())


# --- The weights of stratified batches ----------------------------------------------------------------------------


def full_set_loss(model, alpha, x, y):
    """Equation 9 over the number of images, alpha in our units."""
    draw = model.draw(x, y)
    is_labelled = y >= 0
    cross_entropy = F.cross_entropy(model.classifier_head(model.classifier(x, None))[is_labelled], y[is_labelled])
    return -draw.elbo.mean() + alpha * cross_entropy


@torch.no_grad()
def test_the_loss_over_all_stratified_batches_is_that_of_the_set():
    labelled, unlabelled, l, size = 4, 5, 2, 5  # noqa: E741
    model = without_noise(make(SemiSupervised(0.7, labelled, labelled + unlabelled, l, size)))
    x, y = make_batch(labelled + unlabelled)
    y[labelled:] = -1
    losses = []
    for some in combinations(range(labelled), l):
        for others in combinations(range(labelled, len(x)), size - l):
            batch = [*some, *others]
            losses.append(model.objective(model, x[batch], y[batch], model.step)[0])
    torch.testing.assert_close(torch.stack(losses).mean(), full_set_loss(model, 0.7, x, y), rtol=1e-5, atol=0)
    assert torch.stack(losses).std() > 0.05


@pytest.mark.parametrize("stratified", [True, False])
@torch.no_grad()
def test_the_loss_over_the_epochs_of_the_loader_is_that_of_the_set(stratified):
    """48 images, 8 of them labelled, in batches of 16: ten epochs are 15 turns of the labelled and 9 of the others."""
    chosen = ("model=m2", "data.labelled=8", "objective.alpha=0.7")
    model, data = build(composed(*SMALL, *chosen, *(["data.labelled_per_batch=4"] if stratified else [])))
    model = without_noise(model)
    prepare(data)
    loader = data.train_dataloader()
    losses = [model.objective(model, *batch, model.step)[0] for _ in range(10) for batch in loader]
    split = data.splits["train"]
    assert len(losses) == 30
    assert (split.y >= 0).sum() == 8
    expected = full_set_loss(model, 0.7, split.x / 255, split.y)
    torch.testing.assert_close(torch.stack(losses).mean(), expected, rtol=1e-5, atol=0)


def test_the_numbers_of_labels_come_from_the_data():
    chosen = ("model=m2", "data.labelled=8", "data.labelled_per_batch=4")
    objective = composed(*SMALL, *chosen).objective
    assert (objective.labelled, objective.train_size, objective.labelled_per_batch, objective.batch_size) == (
        8,
        48,
        4,
        16,
    )
    with pytest.raises(ConfigError, match=r"data\.train_size"):
        build(composed(*SMALL, *chosen, "data.train_size=null"))


# --- Runs ---------------------------------------------------------------------------------------------------------

FEW = ("model=m2", "data.labelled=8", "data.labelled_per_batch=4", "model.classifier.hidden=[8]",
       "model.classifier.out_features=8")  # fmt: skip


@pytest.mark.parametrize("objective", [SemiSupervised(0.5)])
def test_in_evaluation_labels_enter_the_error_alone(objective):
    model, (x, y) = make(objective).eval(), make_batch(20)
    outputs = []
    for labels in (y, (y + 1) % CLASSES):
        torch.manual_seed(1)
        outputs.append(model.validation_step((x, labels), 0))
    one, other = (output["draw"] for output in outputs)
    assert torch.equal(one.elbo, other.elbo)
    assert outputs[0]["loss"] == outputs[1]["loss"]
    guess = model.classifier_head(model.classifier(x, None)).argmax(1)
    for draw, labels in ((one, y), (other, (y + 1) % CLASSES)):
        assert draw.extras["error"].mean() == (guess != labels).float().mean()
    assert not torch.equal(one.extras["error"], other.extras["error"])


@pytest.mark.slow
def test_a_run_logs_the_error_is_evaluated_and_resumed(run):
    whole, metrics = run(*FEW, "trainer.max_epochs=4", folder="whole", small=PICTURED)
    assert 0 <= metrics["val/error"] <= 1
    assert "train/error" not in metrics
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"], rel=1e-6)
    assert pictures(whole) >= {"classes", "samples"}
    scores = evaluated(whole, "metrics=[elbo]")
    assert scores["error"] == pytest.approx(metrics["test/error"], rel=1e-6)
    assert scores["elbo"] == pytest.approx(metrics["test/elbo"], rel=1e-6)
    model, data = build(OmegaConf.load(whole / "config.yaml"))
    load_weights(model, whole / "checkpoints" / "best.ckpt")
    data.setup("test")
    split = data.splits["test"]
    wrong = model.classify(split.x / 255).argmax(1) != split.y
    assert metrics["test/error"] == pytest.approx(wrong.float().mean().item())
    part, _ = run(*FEW, "trainer.max_epochs=2", "test=false", folder="part")
    resume(part, trainer__max_epochs=4, test=True)
    assert curve(part) == curve(whole)


def test_the_classifier_learns_from_few_labels_and_the_best_may_follow_its_error(run):
    """Spots whose place is their class: a tenth of the labels is enough for most."""
    options = ("data.source.size=200", "trainer.max_epochs=25", "optimizer.lr=0.01", "objective.alpha=5")
    _, metrics = run(*FEW, *options, "monitor=val/error", "monitor_mode=min")
    assert metrics["test/error"] < 0.3  # chance is 0.75


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ("model=cvae data.labelled=8", r"data\.labelled=8: this model needs the label .* model=m2"),
        ("model=m2 objective=elbo", "model=m2 is trained on objective=semi_supervised, not on ELBO"),
        ("objective=semi_supervised", "choose model=m2"),
        ("model=m2 objective.alpha=-1", r"objective\.alpha=-1"),
        ("model=m2 likelihood=sigma_vae", "choose likelihood=gaussian_shared"),
    ],
)
def test_what_does_not_go_together_is_named(chosen, named):
    with pytest.raises(ConfigError, match=named):
        build(composed(*SMALL, *chosen.split()))


def test_latents_and_stops_are_its_own():
    with pytest.raises(ValueError, match="draws its own latents"):
        make().draw(*make_batch(), stop=("z",))
