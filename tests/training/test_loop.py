"""The training loop: several steps at a time are the steps that Lightning makes one by one."""

import os
import signal
from collections import Counter
from itertools import product
from pathlib import Path
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from helpers.callbacks import Within
from helpers.cases import slow_but
from helpers.runs import curve, resume
from helpers.steps import LONG, Schedules, assert_same, last
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.profilers import SimpleProfiler

from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.models import VAE
from vae_exp.models.module import Module
from vae_exp.objectives import ELBO
from vae_exp.training.loop import Steps


class Follower(pl.Callback):
    """Hears of every batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        seen = torch.load(self.path) if self.path.exists() else []
        torch.save([*seen, (batch_idx, trainer.global_step)], self.path)

    def setup(self, trainer, pl_module, stage):
        self.path = Path(trainer.default_root_dir) / "followed.pt"


@pytest.fixture
def calls(monkeypatch):
    """Steps of each call of the loop."""
    calls = []
    original = Steps._batches_to_event

    def counted(self):
        calls.append(original(self))
        return calls[-1]

    monkeypatch.setattr(Steps, "_batches_to_event", counted)
    return calls


OPTIONS = {
    "as it is": ((), [11, 11]),
    "max_steps": (("trainer.max_steps=17",), [11, 6]),
    "logging": (("trainer.log_every_n_steps=4",), [4, 4, 3, 1, 4, 4, 2]),
    "validation every 4 batches": (("trainer.val_check_interval=4",), [4, 4, 3, 4, 4, 3]),
    "validation twice an epoch": (("trainer.val_check_interval=0.5",), [5, 5, 1, 5, 5, 1]),
    "validation across epochs": (
        ("trainer.val_check_interval=7", "trainer.check_val_every_n_epoch=null"),
        [7, 4, 3, 7, 1],
    ),
    "validation every other epoch": (("trainer.check_val_every_n_epoch=2",), [11, 11]),
    "fewer batches": (("trainer.limit_train_batches=5", "trainer.log_every_n_steps=5"), [5, 5]),
    "no validation": (("trainer.limit_val_batches=0",), [11, 11]),
    "clipping": (("trainer.gradient_clip_val=0.5",), [11, 11]),
    "clipping by value": (("trainer.gradient_clip_val=0.01", "+trainer.gradient_clip_algorithm=value"), [11, 11]),
    "accumulation": (("trainer.accumulate_grad_batches=4",), [11, 11]),
    "accumulation and logging": (
        ("trainer.accumulate_grad_batches=4", "trainer.log_every_n_steps=2"),
        [8, 3, 4, 7],
    ),
    "bf16": (("trainer.precision=bf16-mixed",), [11, 11]),
    "16": (("trainer.precision=16-mixed",), [11, 11]),
    "early stopping": (
        ("trainer.max_epochs=6", "callbacks.early_stopping.patience=1", "monitor=val/kl", "monitor_mode=min"),
        None,
    ),
    "checkpoints every 3 steps": (
        ("+callbacks.often={_target_: vae_exp.callbacks.Checkpoint, every_n_train_steps: 3, save_top_k: -1}",),
        [3, 3, 3, 2, 1, 3, 3, 3, 1],
    ),
    "an optimizer with a closure": (
        ("~optimizer", "+optimizer={_target_: torch.optim.LBFGS, _partial_: true, lr: 0.01, max_iter: 2}"),
        [11, 11],
    ),
}


FAST = ("as it is", "logging", "validation across epochs", "accumulation and logging", "checkpoints every 3 steps")


@pytest.mark.parametrize("option", slow_but(FAST, OPTIONS))
@pytest.mark.filterwarnings("ignore:.*mixed.*")
def test_the_steps_are_lightnings(run, monkeypatch, calls, option):
    overrides, expected = OPTIONS[option]
    many, _ = run(*LONG, *overrides, folder="many")
    if expected is not None:
        assert calls == expected
    assert max(calls) > 1
    one, _ = run(*LONG, *overrides, f"+callbacks.follower._target_={__name__}.Follower", folder="one")
    with monkeypatch.context() as patch:
        patch.setattr("vae_exp.training.trainer.Steps", lambda trainer, **_: _AutomaticOptimization(trainer))
        lightning, _ = run(*LONG, *overrides, folder="lightning")
    assert_same(many, one)
    assert_same(many, lightning)
    if option.startswith("checkpoints"):
        saved = [sorted(p.name for p in (folder / "checkpoints").iterdir()) for folder in (many, one, lightning)]
        assert saved[0] == saved[1] == saved[2]
        assert len(saved[0]) == 2 + 7


@pytest.mark.parametrize("schedule", ["step", "epoch", "plateau"])
def test_learning_rates_follow_their_schedule(run, monkeypatch, calls, schedule):
    monkeypatch.setattr(VAE, "configure_optimizers", getattr(Schedules, schedule))
    many, _ = run(*LONG, "trainer.max_epochs=3", folder="many")
    assert calls == [11, 11, 11]
    monkeypatch.setattr("vae_exp.training.trainer.Steps", lambda trainer, **_: _AutomaticOptimization(trainer))
    lightning, _ = run(*LONG, "trainer.max_epochs=3", folder="lightning")
    assert_same(many, lightning)
    state = torch.load(many / "checkpoints" / "last.ckpt", weights_only=True)
    rate = state["optimizer_states"][0]["param_groups"][0]["lr"]
    # 33 steps, every other of which lowers it; two epochs before the last checkpoint, or three; ten-fold at each of two
    assert rate == pytest.approx({"step": 1e-3 * 0.8**15, "epoch": 1e-3 * 0.5**3, "plateau": 1e-5}[schedule])


def test_a_callback_hears_of_every_batch(run, calls):
    folder, _ = run(*LONG, f"+callbacks.follower._target_={__name__}.Follower")
    assert set(calls) == {1}
    assert torch.load(folder / "followed.pt") == [(k % 11, k + 1) for k in range(22)]


def test_hooks_on_batches_are_called_for_every_batch(run, monkeypatch):
    """A data module of a user's may change batches as Lightning lets it."""
    seen = []

    def darken(self, batch, dataloader_idx):
        seen.append(self.trainer.training)
        return batch[0] / 2, batch[1]

    plain, _ = run(*LONG, folder="plain")
    monkeypatch.setattr(Images, "on_after_batch_transfer", darken, raising=False)
    many, _ = run(*LONG, "test=false", folder="many")
    assert sum(seen) == 22
    assert curve(many)[0]["train/recon"] != curve(plain)[0]["train/recon"]


def test_hooks_before_the_transfer_are_called_for_every_batch(run, monkeypatch):
    seen = []

    def note(self, batch, dataloader_idx):
        seen.append(self.trainer.training)
        return batch

    monkeypatch.setattr(Images, "on_before_batch_transfer", note, raising=False)
    run(*LONG, "test=false")
    assert sum(seen) == 22


class Smoothed(VAE):
    """Looks at each batch itself."""

    seen: ClassVar[list[int]] = []

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append(batch_idx)
        super().on_train_batch_end(outputs, batch, batch_idx)


def test_a_model_hears_of_every_batch(run, calls):
    Smoothed.seen.clear()
    run(*LONG, f"model._target_={__name__}.Smoothed")
    assert Smoothed.seen == [*range(11), *range(11)]
    assert set(calls) == {1}


class Logging(ELBO):
    """An objective that logs."""

    def __call__(self, model, x, y, step):
        loss, draw = super().__call__(model, x, y, step)
        if model.training:
            model.log("train/first", draw.elbo[0], on_epoch=True, on_step=False)
        return loss, draw


def test_an_objective_may_log(run, calls, monkeypatch):
    many, _ = run(*LONG, f"objective._target_={__name__}.Logging", folder="many")
    assert calls == [11, 11]
    monkeypatch.setattr("vae_exp.training.trainer.Steps", lambda trainer, **_: _AutomaticOptimization(trainer))
    lightning, _ = run(*LONG, f"objective._target_={__name__}.Logging", folder="lightning")
    assert any(row.get("train/first") for row in curve(many))
    assert_same(many, lightning)


@pytest.mark.parametrize("step", slow_but([16], [4, 11, 16]))
def test_a_checkpoint_of_any_step_can_be_resumed(run, step):
    """As after kill -9: the last checkpoint was written at the end of a batch."""
    often = "+callbacks.often={_target_: vae_exp.callbacks.Checkpoint, every_n_train_steps: N, save_top_k: -1}"
    often = often.replace("N", str(step))
    whole, _ = run(*LONG, often, folder="whole")
    part, _ = run(*LONG, often, "trainer.max_steps=20", "test=false", folder="part")
    checkpoints = part / "checkpoints"
    next(checkpoints.glob(f"*-step={step}.ckpt")).replace(checkpoints / "last.ckpt")
    assert last(part)[0] == step
    resume(part, trainer__max_steps=-1, test=True)
    assert_same(whole, part)


def test_a_profiler_sees_the_steps(run, monkeypatch):
    seen = Counter()
    start = SimpleProfiler.start

    def noted(self, action_name):
        seen[action_name.split("].")[0].split(".")[0] + "." + action_name.split(".")[-1]] += 1
        start(self, action_name)

    monkeypatch.setattr(SimpleProfiler, "start", noted)
    run(*LONG, "+trainer.profiler=simple", "test=false")
    assert seen["[Strategy]SingleDeviceStrategy.training_step"] == 22


def test_a_callback_sees_every_gradient(run, calls):
    Within.norms = []
    many, _ = run(*LONG, "+callbacks.within._target_=helpers.callbacks.Within", folder="many")
    assert calls == [11, 11]
    assert len(Within.norms) == len(set(Within.norms)) == 22
    assert_same(many, run(*LONG, folder="plain")[0])


PLAIN, ACCUMULATED, LOGGED = (), ("trainer.accumulate_grad_batches=2",), ("trainer.log_every_n_steps=4",)


@pytest.mark.parametrize(
    ("step", "options"),
    slow_but([(3, LOGGED), (11, PLAIN), (15, ACCUMULATED)], product([3, 10, 11, 15], [PLAIN, ACCUMULATED, LOGGED])),
)
def test_a_run_interrupted_within_its_steps_continues_to_the_bit(run, monkeypatch, tmp_path, step, options):
    whole, _ = run(*LONG, *options, folder="whole")
    original, made = Module.training_step, []

    def interrupted(self, batch, batch_idx):
        made.append(batch_idx)
        if len(made) == step + 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Module, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*LONG, *options, folder="part")
    part = tmp_path / "part"
    each = 2 if options == ACCUMULATED else 1
    # The step in hand is finished, with all of its batches; the last of an epoch may have fewer.
    assert last(part)[0] == step // 11 * -(-11 // each) + step % 11 // each + 1
    resume(part)
    assert_same(whole, part)


def test_a_signal_ends_the_run_after_the_step_in_hand(run, monkeypatch, tmp_path):
    whole, _ = run(*LONG, folder="whole")
    original = Module.training_step

    def terminated(self, batch, batch_idx):
        if self.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Module, "training_step", terminated)
        with pytest.raises(SystemExit) as error:
            run(*LONG, folder="part")
    assert error.value.code == 143
    part = tmp_path / "part"
    assert last(part)[0] == 6
    resume(part)
    assert_same(whole, part)


def test_no_step_is_made_after_one_without_a_number(run, tmp_path):
    """A step that went wrong among many is named as it is when made by itself."""
    with pytest.raises(ConfigError, match=r"step 1 \(epoch 0, batch 1\): recon is (inf|nan) for 16 of 16"):
        run(*LONG, "optimizer.lr=1e30")
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
