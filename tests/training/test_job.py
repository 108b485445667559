"""Runs: what they leave, that they repeat, resume and reload exactly, and how they stop."""

import csv
import json
import os
import signal
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from helpers.cases import slow_but
from helpers.runs import PICTURED, SMALL, composed, curve, evaluated, pictures, record, resume
from omegaconf import OmegaConf

from vae_exp.config import ConfigError
from vae_exp.runs.build import build
from vae_exp.runs.checkpoint import load_weights
from vae_exp.runs.folder import load_config
from vae_exp.training.job import train
from vae_exp.training.summary import summarise


@pytest.mark.parametrize("model", slow_but(["cvae"], ["vae", "cvae", "beta_vae"]))
def test_a_run_folder_holds_everything(run, model):
    folder, metrics = run(f"model={model}", small=PICTURED)
    assert pictures(folder) == {"elbo", "reconstructions", "samples", *(["classes"] if model == "cvae" else [])}
    for name in ("best", "last"):
        state = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert "hyper_parameters" not in state
    written = record(folder)
    assert written["status"] == "finished"
    assert written["bound"]["of"] == ("log p(x|y)" if model == "cvae" else "log p(x)")
    assert written["seed"] == 0
    assert set(written["data"]) == {"train", "val", "test"}
    assert written["metrics"]["train/images_per_second"] > 0
    assert written["wall_seconds"] > 0
    assert {"argv", "git", "versions", "cpu", "time"} <= set(written["starts"][0])
    assert OmegaConf.load(folder / "config.yaml").model.context_dim == (4 if model == "cvae" else 0)
    for stage in ("train", "val", "test"):
        assert {f"{stage}/{term}" for term in ("elbo", "recon", "kl", "loss")} <= set(metrics)
    with (folder / "kl_per_dim.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert [row["step"] for row in rows] == [row["step"] for row in curve(folder) if row["val/elbo"]]
    total = sum(float(rows[-1][f"z{d}"]) for d in range(3))
    assert total == pytest.approx(metrics["val/kl"], rel=1e-4)


def test_the_logged_elbo_carries_no_beta(run):
    _, metrics = run("model=beta_vae", "objective.beta=7")
    for stage in ("train", "val", "test"):
        terms = {term: metrics[f"{stage}/{term}"] for term in ("elbo", "recon", "kl", "loss")}
        assert terms["elbo"] == pytest.approx(-terms["recon"] - terms["kl"], rel=1e-6)
        assert terms["loss"] == pytest.approx(terms["recon"] + 7 * terms["kl"], rel=1e-6)


def test_one_seed_gives_one_curve_to_the_bit(run):
    first, second = run(folder="a")[0], run(folder="b")[0]
    assert curve(first) == curve(second)
    assert curve(run("seed=1", folder="c")[0]) != curve(first)


def test_the_seeds_of_a_sweep_are_scored_on_the_same_data(run):
    """data.seed does not follow seed."""
    options = ("data.binarize=dynamic", "likelihood=bce")
    first, second = (record(run(*options, f"seed={seed}", folder=f"{seed}")[0]) for seed in (0, 1))
    assert first["data"] == second["data"]
    other = record(run(*options, "data.seed=1", folder="other")[0])
    assert other["data"]["val"] != first["data"]["val"]


def test_a_reloaded_run_scores_as_it_did(run):
    folder, metrics = run("model=cvae")
    scores = evaluated(folder, "metrics=[elbo]")
    assert scores["elbo"] == pytest.approx(metrics["test/elbo"], rel=1e-6)
    written = json.loads((folder / "evaluation.json").read_text())
    assert written["elbo"] == scores["elbo"]
    assert written["num_images"] == 64


def test_a_resumed_run_continues_to_the_bit(run):
    whole, _ = run("trainer.max_epochs=4", folder="whole")
    part, _ = run("trainer.max_epochs=2", "test=false", folder="part")
    resume(part, trainer__max_epochs=4, test=True)
    assert curve(part) == curve(whole)
    assert (part / "kl_per_dim.csv").read_text() == (whole / "kl_per_dim.csv").read_text()
    assert len(record(part)["starts"]) == 2


class StopAt(pl.Callback):
    """Ctrl-C in the middle of an epoch, in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("interrupted")


@pytest.mark.parametrize("step", slow_but([3], [2, 3, 4]))
def test_a_run_interrupted_at_any_step_continues_to_the_bit(run, tmp_path, step):
    whole, _ = run(folder="whole")
    stop = f"+callbacks.stop={{_target_: {__name__}.StopAt, step: {step}}}"
    with pytest.raises(RuntimeError, match="interrupted"):
        run(stop, folder="part")
    part = tmp_path / "part"
    assert record(part)["status"] == "failed"
    resume(part, callbacks__stop=None)
    assert curve(part) == curve(whole)


class Seen(pl.Callback):
    """Keeps the images and the first noise of every training step."""

    steps: ClassVar[list] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Seen.steps.append((batch[0].clone(), torch.get_rng_state()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [(), ("model=m2", "likelihood=bce", "data.binarize=threshold", "data.labelled=8", "data.labelled_per_batch=3")],
)
@pytest.mark.parametrize("overfit", [2, 0.67, 0])
def test_overfit_batches_are_the_same_in_each_epoch(run, options, overfit):
    Seen.steps.clear()
    options = (*options, "data.eval_batch_size=4", f"+callbacks.seen._target_={__name__}.Seen", "test=false")
    run(*options, f"+trainer.overfit_batches={overfit}")
    images, noise = zip(*Seen.steps, strict=True)
    per_epoch = 3 if overfit == 0 else 2  # of 48 images, 16 a batch
    assert len(images) == 2 * per_epoch
    first, second = images[:per_epoch], images[per_epoch:]
    assert all(map(torch.equal, first, second)) == (overfit > 0)
    assert not torch.equal(first[0], first[1])
    assert len({bytes(state.numpy()) for state in noise}) == len(noise)


class StopInValidation(pl.Callback):
    """Ctrl-C in a batch of a validation."""

    def __init__(self, validation):
        self.left = validation

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        self.left -= batch_idx == 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


class StopAfterValidation(pl.Callback):
    """Ctrl-C at the end of the first validation."""

    def on_validation_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("validation", "options"),
    slow_but(
        [(2, ())],
        [
            *((validation, ()) for validation in (1, 2, 3)),
            (1, ("trainer.val_check_interval=2",)),
            (2, ("trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=null")),
            (2, ("trainer.accumulate_grad_batches=2",)),
        ],
    ),
)
def test_a_validation_that_was_interrupted_is_repeated(run, tmp_path, validation, options):
    options = (*options, "trainer.max_epochs=3", "data.eval_batch_size=6")
    whole, _ = run(*options, folder="whole")
    stop = f"+callbacks.stop={{_target_: {__name__}.StopInValidation, validation: {validation}}}"
    with pytest.raises(KeyboardInterrupt):
        run(*options, stop, folder="part")
    part = tmp_path / "part"
    assert record(part)["status"] == "interrupted"
    last = part / "checkpoints" / "last.ckpt"
    cut = last.read_bytes()
    with pytest.raises(KeyboardInterrupt):  # at the end of the validation that is repeated
        resume(part, callbacks__stop=None, callbacks__after={"_target_": f"{__name__}.StopAfterValidation"})
    if validation == 1:  # the same, killed before it saved
        last.write_bytes(cut)
    resume(part, callbacks__after=None)
    assert curve(part) == curve(whole)
    assert (part / "kl_per_dim.csv").read_text() == (whole / "kl_per_dim.csv").read_text()
    assert record(part)["metrics"]["best/val/elbo"] == record(whole)["metrics"]["best/val/elbo"]


@pytest.mark.slow
def test_the_row_that_an_interruption_cut_in_two_is_whole(run):
    """Train means reach over the resume: three steps an epoch, a row every second."""
    whole, _ = run("trainer.max_epochs=4", "trainer.log_every_n_steps=2", folder="whole")
    part, _ = run("trainer.max_epochs=1", "trainer.log_every_n_steps=2", "test=false", folder="part")
    resume(part, trainer__max_epochs=4, test=True)
    assert curve(part) == curve(whole)


def test_a_resumed_and_moved_run_keeps_its_best(run, tmp_path):
    """The weights are ruined after the resume: the best model is the one of before."""
    folder, before = run("trainer.max_epochs=1", folder="run")
    moved = folder.rename(tmp_path / "moved")
    after = resume(moved, trainer__max_epochs=3, callbacks__ruin={"_target_": "helpers.callbacks.Ruin"})
    assert after["best/val/elbo"] == before["best/val/elbo"] > after["val/elbo"]
    assert after["test/elbo"] == before["test/elbo"]


def test_an_elbo_that_is_no_number_is_no_result(run, tmp_path):
    """The only step ruins the weights; the validation finds out."""
    with pytest.raises(ConfigError, match=r"val/loss is (nan|inf)"):
        run("optimizer.lr=1e30", "trainer.limit_train_batches=1")
    assert record(tmp_path / "run")["status"] == "failed"


def test_training_without_a_validation_says_what_was_tested(run, caplog):
    caplog.set_level("INFO", logger="vae_exp")
    folder, metrics = run("trainer.max_steps=2")
    summarise(load_config(folder), folder, metrics)
    assert "there was no validation" in caplog.text
    assert "checkpoint=last" in caplog.text
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert "test/elbo" in metrics


def test_every_epoch_leaves_its_checkpoint(run):
    folder, _ = run("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.slow
def test_a_flow_is_a_posterior_as_it_stands(run):
    flow = "{_target_: zuko.flows.MAF, features: 3, context: 8, transforms: 1, hidden_features: [8]}"
    _, metrics = run("~posterior", f"+posterior={flow}")
    assert "val/active_units" not in metrics
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"], rel=1e-6)


def test_init_from_takes_the_weights_alone(run):
    folder, metrics = run()
    started, before = run(f"init_from={folder}", "optimizer.lr=0", "trainer.max_epochs=1", folder="started")
    assert before["test/elbo"] == metrics["test/elbo"]
    assert record(started)["run_id"] != record(folder)["run_id"]
    with pytest.raises(ConfigError, match=r"best\.ckpt.*other parts"):
        run(f"init_from={folder}", "latent_dim=4", folder="misfit")


def test_a_corrupt_checkpoint_is_named(run):
    folder, _ = run()
    path = folder / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"best\.ckpt is damaged"):
        load_weights(build(composed(*SMALL))[0], path)


def test_a_loss_that_is_no_number_stops_the_run_and_names_term_and_batch(run, tmp_path):
    with pytest.raises(ConfigError, match=r"step 1 \(epoch 0, batch 1\): recon is (inf|nan) for 16 of 16"):
        run("optimizer.lr=1e30")
    written = record(tmp_path / "run")
    assert written["status"] == "failed"
    assert "recon" in written["error"]
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "option", ["trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2", "objective.num_samples=3"]
)
def test_options_of_training_change_training(run, option):
    plain, changed = run(folder="plain")[0], run(option, folder="changed")[0]
    assert curve(plain)[-1]["test/elbo"] != curve(changed)[-1]["test/elbo"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "adagrad", "radam"])
def test_every_optimizer_follows_a_schedule_and_is_resumed_to_the_bit(run, optimizer):
    options = (f"optimizer={optimizer}", "+schedule@optimizer.lr=linear", "optimizer.lr.start=0.01")
    options += ("optimizer.lr.end=0.001", "optimizer.lr.steps=9")
    whole, _ = run(*options, "trainer.max_epochs=4", "test=false", folder="whole")
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.001)
    part, _ = run(*options, "trainer.max_epochs=2", "test=false", folder="part")
    resume(part, trainer__max_epochs=4)
    assert curve(part) == curve(whole)


def test_an_optimizer_that_counts_on_the_gpu_is_refused_on_a_cpu(run):
    with pytest.raises(ConfigError, match=r"optimizer\.capturable=true"):
        run("optimizer=radam", "optimizer.capturable=true")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_batch_normalisation_of_one_image_is_refused_before_the_run_begins(run, tmp_path, part):
    with pytest.raises(ConfigError, match=rf"(?s)data\.batch_size.*{part}\.normalization"):
        run(f"{part}.normalization=batch", "data.batch_size=1")
    assert not (tmp_path / "run").exists()
    run("encoder.normalization=layer", "decoder.normalization=layer", "data.batch_size=1", "trainer.max_steps=1")


@pytest.mark.slow
def test_gradients_are_clipped_to_the_norm(run):
    """A step of plain gradient descent is no longer than lr x the norm."""
    folder, _ = run(
        "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.5", "trainer.gradient_clip_val=0.01",
        "trainer.max_steps=1", "test=false",
    )  # fmt: skip
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    pl.seed_everything(0, verbose=False)
    start = build(composed(*SMALL))[0].state_dict()
    squares = sum((state[key] - start[key]).double().square().sum() for key in start)
    assert squares.sqrt().item() == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.filterwarnings("ignore:.*mixed.*")
def test_mixed_precision_trains_and_keeps_its_bound_in_float32(run, precision):
    exact, mixed = run(folder="exact")[1], run(f"trainer.precision={precision}", folder="mixed")[1]
    assert mixed["test/elbo"] == pytest.approx(exact["test/elbo"], rel=0.01)
    assert mixed["test/elbo"] != exact["test/elbo"]
    assert mixed["test/elbo"] == pytest.approx(-mixed["test/recon"] - mixed["test/kl"], rel=1e-6)


def test_early_stopping_follows_the_monitor(run):
    """Without learning the first validation stays the best."""
    folder, _ = run("optimizer.lr=0", "trainer.max_epochs=10", "callbacks.early_stopping.patience=2")
    assert len((folder / "kl_per_dim.csv").read_text().splitlines()) == 1 + 3


def test_the_best_checkpoint_is_the_one_that_is_tested(run):
    """The learning rate ruins the second epoch; the test reports the first."""
    _, one = run("trainer.max_epochs=1", folder="one")
    folder, two = run("+callbacks.ruin={_target_: helpers.callbacks.Ruin}", folder="two")
    assert two["val/elbo"] < one["val/elbo"] - 10
    assert two["test/elbo"] == one["test/elbo"]
    assert (folder / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_images_of_a_user_who_asks_for_no_logger(run):
    folder, _ = run("logger=none", small=PICTURED)
    assert not (folder / "metrics.csv").exists()
    assert "samples" in pictures(folder)


@pytest.mark.slow
def test_a_callback_can_be_left_out(run):
    folder, metrics = run("callbacks.early_stopping=null", "callbacks.latents=null", "callbacks.speed=null")
    assert not (folder / "kl_per_dim.csv").exists()
    assert "val/active_units" not in metrics


@pytest.mark.slow
def test_active_units_are_the_dimensions_in_which_the_posterior_mean_varies(run):
    """By hand, from the model's own posterior means on the test images."""
    folder, metrics = run("trainer.max_epochs=3", "optimizer.lr=0.01")
    cfg = OmegaConf.load(folder / "config.yaml")
    model, data = build(cfg)
    load_weights(model, folder / "checkpoints" / "best.ckpt")
    data.setup("test")
    with torch.no_grad():
        mean = model.encode(data.splits["test"].x / 255).mean
    assert metrics["test/active_units"] == (mean.var(dim=0, correction=0) > 0.01).sum().item()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("expected", {"metric": "x"}, "expected="), ("expected", 3, "expected="),
        ("expected", {"metric": "x", "value": "1", "tolerance": 1}, "expected="),
        ("monitor", "val/x", "monitor=val/x"), ("callbacks.best.monitor", "val/x", "Checkpoint has monitor=val/x"),
        ("callbacks.early_stopping.monitor", "elbo", "Patience has monitor=elbo"),
        ("callbacks.x", {"a": 1}, "callbacks.x: dict is no callback"),
        ("callbacks.x", {"_target_": "torch.nn.Identity"}, "callbacks.x: Identity is no callback"),
        ("callbacks.x", {"_target_": "vae_exp.callbacks.Nothing"}, "callbacks.x"),
        ("logger.x", {"a": 1}, "logger.x: a class is needed"), ("logger.x", 3, "logger.x: a class is needed"),
        ("logger.x", {"_target_": "vae_exp.loggers.Nothing"}, "logger.x"),
        ("logger.x", {"_target_": "nowhere.Logger"}, "logger.x"),
        ("logger.csv.step", 3, "logger.csv: .*unexpected keyword argument 'step'"),
        ("logger.x", {"_target_": "vae_exp.loggers.CSV"}, "logger.x: missing a required argument"),
    ],
)  # fmt: skip
def test_what_would_fail_after_training_is_refused_before_it(tmp_path, key, value, reason):
    cfg = composed(*SMALL)
    OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    with pytest.raises(ConfigError, match=reason):
        train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()
