"""The step as a CUDA graph, as far as a CPU goes: a graph is played by running what was captured once more."""

import copy
import logging
from contextlib import contextmanager, nullcontext
from operator import attrgetter

import pytest
import pytorch_lightning as pl
import torch
from helpers.cases import slow_but
from helpers.runs import SMALL, composed, curve
from helpers.steps import LONG, Schedules, assert_same
from torch import nn

from vae_exp.config import ConfigError
from vae_exp.models import VAE
from vae_exp.runs.build import build
from vae_exp.schedules import Constant
from vae_exp.training.graph import Graph
from vae_exp.training.loop import Steps


class Player:
    """What `torch.cuda.CUDAGraph` is to a step: capturing changes nothing, replaying writes into the same tensors."""

    replays = 0
    owner: Graph

    def replay(self):
        owner, noted = self.owner, self.owner.model.ledgers["train"].noted
        owner.step(owner.batch, 0)
        parameters = [parameter for parameter in owner.model.parameters() if parameter.requires_grad]
        for parameter, place in zip(parameters, owner.gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad = place.copy_(parameter.grad)
        terms, loss, _ = noted.pop()
        assert terms.keys() == owner.terms.keys()
        for name, new in terms.items():
            owner.terms[name].copy_(new)
        owner.loss.copy_(loss)
        Player.replays += 1


@contextmanager
def capture(graph, capture_error_mode):
    """Runs the step and takes back what it did."""
    model, optimizer = Player.owner.model, Player.owner.optimizer
    weights = copy.deepcopy(model.state_dict())
    state, noise = copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
    assert all(group.get("capturable", True) for group in optimizer.param_groups if group.get("fused"))
    yield
    model.load_state_dict(weights)
    for group in state["param_groups"]:
        if "capturable" in group:
            group["capturable"] = False
    optimizer.load_state_dict(state)
    torch.set_rng_state(noise)


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """A CPU that the loop takes for a GPU."""
    for name, fake in {
        "CUDAGraph": Player,
        "graph": capture,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    init, run = Graph.__init__, Steps.run

    def owned(self, *args, **kwargs):
        init(self, *args, **kwargs)
        Player.owner, Player.replays = self, 0

    def on_cuda(self, optimizer, batch_idx, kwargs):
        if self.cuda_graphs:
            self._prepare_graph(optimizer, self._special(optimizer))
        return run(self, optimizer, batch_idx, kwargs)

    monkeypatch.setattr(Graph, "__init__", owned)
    monkeypatch.setattr(Steps, "run", on_cuda)


@pytest.mark.parametrize(
    "option",
    slow_but(
        ["model=cvae", "optimizer=adamw"],
        [
            *("model=vae", "model=cvae", "model=beta_vae", "trainer.gradient_clip_val=0.5"),
            *("likelihood=sigma_vae", "prior=flow", "encoder.normalization=batch"),
            *("optimizer=adamw", "optimizer=sgd", "optimizer=adagrad"),
        ],
    ),
)
def test_a_replayed_step_is_the_eager_one(run, cuda, option):
    eager, _ = run(*LONG, option, "trainer.cuda_graphs=false", folder="eager")
    graph, _ = run(*LONG, option, folder="graph")
    assert Player.replays == 22 - 3
    assert_same(eager, graph)
    state = torch.load(graph / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any(group.get("capturable") for group in state["optimizer_states"][0]["param_groups"])


def test_replays_are_noted_each_by_itself(run, cuda):
    """The terms of a step are overwritten by the next: a row every four steps is their mean all the same."""
    options = (*LONG, "trainer.log_every_n_steps=4")
    assert_same(run(*options, "trainer.cuda_graphs=false", folder="eager")[0], run(*options, folder="graph")[0])


def test_a_replay_that_goes_wrong_is_named(run, cuda, monkeypatch):
    original = Player.replay

    def wrong(self):
        original(self)
        if Player.replays == 6:
            self.owner.terms["recon"][2:4] = torch.nan

    monkeypatch.setattr(Player, "replay", wrong)
    with pytest.raises(ConfigError, match=r"step 8 \(epoch 0, batch 8\): recon is nan for 2 of 16 images"):
        run(*LONG)


def _other_noise(play, player):
    torch.rand(1)
    play(player)


def _other_rate(play, player):
    """The rate of the first epoch in a later one is what a graph would keep."""
    group = player.owner.optimizer.param_groups[0]
    group["lr"] *= 1.1
    play(player)
    group["lr"] /= 1.1


def _other_gradient(play, player):
    play(player)
    player.owner.gradients[0].zero_()


def _other_loss(play, player):
    play(player)
    player.owner.loss.mul_(1.01)


def _no_gradient(play, player):
    play(player)
    player.owner.gradients[0].fill_(torch.nan)


@pytest.mark.parametrize(
    ("fault", "named", "first"),
    [
        (_other_noise, "loss", 1),
        (_other_rate, "updated weights", 1),
        (_other_gradient, "gradient", 1),
        (_other_loss, "loss", 6),  # at the second comparison
        (_no_gradient, "gradient", 6),
    ],
)
def test_a_graph_that_is_wrong_is_given_up(run, cuda, monkeypatch, caplog, fault, named, first):
    monkeypatch.setattr("vae_exp.training.graph.EVERY", 5)
    play = Player.replay

    def wrong(self):
        if Player.replays + 1 < first:
            return play(self)
        return fault(play, self)

    eager, _ = run(*LONG, "trainer.cuda_graphs=false", folder="eager")
    monkeypatch.setattr(Player, "replay", wrong)
    with caplog.at_level(logging.WARNING, "vae_exp"):
        graph, _ = run(*LONG, folder="graph")
    assert caplog.text.count(f"in a replayed step the {named} is off by") == 1
    assert Player.replays == first
    assert_same(eager, graph)


def test_a_replay_is_compared_in_the_first_epoch_alone(run, cuda, monkeypatch):
    compared = []
    original = Graph._compared
    monkeypatch.setattr("vae_exp.training.graph.EVERY", 2)
    monkeypatch.setattr(Graph, "_compared", lambda self, *a: compared.append(self.replays) or original(self, *a))
    run(*LONG)
    assert compared == [1, 3, 5, 7]  # of 11 steps of the first epoch, 3 before the capture


def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_why(run, cuda, monkeypatch, caplog):
    eager, _ = run(*LONG, "trainer.cuda_graphs=false", folder="eager")
    attempts = []

    @contextmanager
    def refuse(graph, capture_error_mode):
        attempts.append(graph)
        with capture(graph, capture_error_mode):
            yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with caplog.at_level(logging.INFO, "vae_exp"):
        fallback, _ = run(*LONG, folder="graph")
    assert len(attempts) == 1
    assert Player.replays == 0
    assert "runs eagerly: CUDA error: operation not permitted when stream is capturing" in caplog.text
    assert_same(eager, fallback)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("trainer.accumulate_grad_batches=2",), "accumulate_grad_batches"),
        (("+callbacks.within._target_=helpers.callbacks.Within",), "a callback"),
        (("optimizer.fused=false",), "the optimizer, which keeps its state on the CPU"),
        (("optimizer=rmsprop",), "the optimizer, which keeps its state on the CPU"),
        (("optimizer=radam",), "the optimizer, which keeps its state on the CPU"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(run, cuda, caplog, options, reason):
    with caplog.at_level(logging.INFO, "vae_exp"):
        run(*LONG, *options)
    assert caplog.text.count(f"the steps run eagerly, because of {reason}") == 1


class Change(pl.Callback):
    """Sets a number of the model, or freezes the encoder, after the first epoch."""

    def __init__(self, path, value):
        self.path, self.value = path, value

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            if self.path == "lr":
                trainer.optimizers[0].param_groups[0]["lr"] = self.value
            elif self.path == "encoder":
                pl_module.encoder.requires_grad_(self.value)
            else:
                change(pl_module, self.path, self.value)


def change(model, path, value):
    """Sets `a.b.c` of a model, which must be another value than before."""
    *held, name = path.split(".")
    owner = attrgetter(".".join(held))(model)
    assert getattr(owner, name) != value
    setattr(owner, name, value)


@pytest.mark.parametrize(
    ("path", "value"),
    slow_but(
        [("objective.beta", 50.0), ("lr", 0.1)],
        [
            ("objective.beta", 50.0),
            ("objective.estimate.num_samples", 3),
            ("corruption.scale", 2.0),
            ("lr", 0.1),
            ("encoder", False),
        ],
    ),
)
def test_what_changes_between_steps_is_captured_anew(run, cuda, path, value):
    options = (*LONG, "likelihood=sse", "objective=beta_elbo", "objective.beta=1", "corruption=gaussian")
    options += ("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps", "~optimizer.fused")
    chosen = f"+callbacks.change={{_target_: {__name__}.Change, path: {path}, value: {value}}}"
    eager, _ = run(*options, chosen, "trainer.cuda_graphs=false", folder="eager")
    graph, _ = run(*options, chosen, folder="graph")
    assert Player.replays == 11 - 3  # of the second graph
    assert_same(eager, graph)
    assert curve(run(*options, folder="unchanged")[0])[-1] != curve(graph)[-1]


class Noise(nn.Module):
    """A corruption of a user's, whose number lies in an object of its own."""

    def __init__(self):
        super().__init__()
        self.level = Constant(0.1)

    def forward(self, x):
        return x + self.level(0) * torch.randn_like(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        (["objective=elbo"], "objective.estimate.num_samples", 5),
        (["objective=iwae"], "objective.bound.groups", (1, 7)),
        (["objective=beta_elbo", "+schedule@objective.beta=linear"], "objective.beta.end", 4.0),
        (["objective=capacity"], "objective.capacity.steps", 7),
        (["objective=semi_supervised", "model=m2"], "objective.share", 0.5),
        (["corruption=gaussian"], "corruption.scale", 0.9),
        ([f"corruption._target_={__name__}.Noise"], "corruption.level.value", 0.9),
        (["likelihood=laplace"], "likelihood.scale", 0.2),
        (["posterior=bernoulli", "posterior.relaxed=true"], "posterior.temperature", 0.1),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_number_of_any_part_ends_a_graph(options, path, value):
    model, _ = build(composed(*SMALL, *options))
    graph = Graph(None, model, model.configure_optimizers())
    model.objective(model, torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), model.step)
    assert not graph.is_outdated()
    change(model, path, value)
    assert graph.is_outdated()


def test_a_schedule_that_begins_later_ends_the_graph(run, cuda, caplog):
    averaging = "+callbacks.swa={_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.1}"
    options = (*LONG, averaging, "trainer.max_epochs=4", "test=false")
    eager, _ = run(*options, "trainer.cuda_graphs=false", folder="eager")
    with caplog.at_level(logging.INFO, "vae_exp"):
        graph, _ = run(*options, folder="graph")
    assert "because of the learning rate's schedule" in caplog.text
    assert 0 < Player.replays < 44
    assert_same(eager, graph)


def test_a_graph_never_keeps_an_old_learning_rate(run, cuda, monkeypatch, caplog):
    monkeypatch.setattr(VAE, "configure_optimizers", Schedules.step)
    with caplog.at_level(logging.INFO, "vae_exp"):
        run(*LONG)
    assert "because of the learning rate's schedule" in caplog.text


if torch.cuda.is_available():

    def test_on_a_gpu(run):
        """The real thing: the same weights, bits and noise, with a graph and without."""
        options = (*LONG, "trainer.accelerator=gpu")
        eager, _ = run(*options, "trainer.cuda_graphs=false", folder="eager")
        graph, _ = run(*options, folder="graph")
        pairs = zip(curve(eager), curve(graph), strict=True)
        assert all(
            float(a["val/loss"]) == pytest.approx(float(b["val/loss"]), rel=1e-4) for a, b in pairs if a["val/loss"]
        )
