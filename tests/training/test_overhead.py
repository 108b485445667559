"""What a step costs beside its arithmetic, counted: time itself is measured in benchmarks/, where it can be noisy."""

import sys
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from helpers.runs import SMALL, composed
from torch.profiler import profile

from vae_exp.runs.build import build
from vae_exp.training.loop import Steps

# One epoch of a hundred steps, two calls of the loop.
HUNDRED = ("data.source.size=1616", "trainer.max_epochs=1", "trainer.log_every_n_steps=50", "test=false")


def operations(step):
    """The operations of one step that reach a kernel, by name."""
    step()
    with profile() as measured:
        step()
    leaves = [event for event in measured.events() if event.name.startswith("aten::") and not event.cpu_children]
    return Counter(event.name for event in leaves)


def by_hand(model, x):
    """The loss of the default VAE as one writes it."""
    h = model.encoder(x)
    mu, logvar = model.posterior.mu(h), model.posterior.logvar(h)
    z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
    recon = torch.nn.functional.binary_cross_entropy_with_logits(model.decoder(z), x, reduction="sum")
    return (recon + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()) / len(x)


@pytest.mark.slow
def test_a_step_launches_few_kernels_more_than_one_by_hand():
    model, data = build(composed(*SMALL, "data.binarize=dynamic", "likelihood=bce"))
    optimizer = model.configure_optimizers()
    x = torch.rand(16, *data.image_shape).bernoulli()

    def step(loss):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    ours = operations(lambda: step(lambda: model.objective(model, x, None, model.step)[0]))
    hand = operations(lambda: step(lambda: by_hand(model, x)))
    assert sum(hand.values()) > 100
    assert sum(ours.values()) <= 1.25 * sum(hand.values()), ours - hand


def test_no_step_waits_for_the_device(run, monkeypatch):
    """A number that Python reads (item, tolist, bool of a tensor) is a number that a GPU has to be waited for."""
    reads = []
    update = Steps._update

    def counted(self, *args):
        with profile() as measured:
            loss = update(self, *args)
        reads.append(sum(event.name == "aten::_local_scalar_dense" for event in measured.events()))
        return loss

    monkeypatch.setattr(Steps, "_update", counted)
    # On a CPU Adam reads its step counts, and one_hot the range of the labels (two reads).
    sgd = ("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps", "~optimizer.fused")
    for model, expected in (("vae", 0), ("cvae", 2)):
        reads.clear()
        run(*sgd, "trainer.max_epochs=1", "test=false", f"model={model}", folder=model)
        assert reads == [expected] * 3


@pytest.fixture
def calls(monkeypatch):
    """Python calls within Lightning while training batches, and `self.log`s."""
    counted = Counter()
    advance = pl.loops._TrainingEpochLoop.advance

    def watch(frame, event, arg):
        if event == "call" and "pytorch_lightning" in frame.f_code.co_filename:
            counted["python"] += 1
            counted["hooks"] += frame.f_code.co_name.startswith("_call_") and "hook" in frame.f_code.co_name
            counted["log"] += frame.f_code.co_name == "log" and frame.f_code.co_filename.endswith("core/module.py")

    def watched(self, fetcher):
        sys.setprofile(watch)
        try:
            advance(self, fetcher)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(pl.loops._TrainingEpochLoop, "advance", watched)
    return counted


def test_lightning_has_little_to_do_with_a_step(run, calls, monkeypatch):
    run(*HUNDRED)
    few = Counter(calls)
    assert few["log"] == 0
    assert few["hooks"] / 100 <= 1
    assert few["python"] / 100 <= 80
    calls.clear()
    monkeypatch.setattr("vae_exp.training.trainer.Steps", lambda trainer, **_: pl.loops._AutomaticOptimization(trainer))
    run(*HUNDRED, folder="lightning")
    assert calls["hooks"] / 100 > 10
    assert calls["python"] > 5 * few["python"]
