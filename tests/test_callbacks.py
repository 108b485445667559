"""Checkpoints beside `best` and `last`."""

import pytest
import torch
from helpers.runs import resume

from vae_exp.config import ConfigError

SECOND = "+callbacks.second={_target_: vae_exp.callbacks.Checkpoint, monitor: val/elbo, mode: max, filename: %s}"
NUMBERED = SECOND % "'epoch{epoch}', save_top_k: 2, auto_insert_metric_name: false"


def test_two_that_follow_the_same_metric_keep_two_files(run):
    folder, _ = run(SECOND % "second", "test=false")
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "second")]
    best, second = (torch.load(path, weights_only=True) for path in paths)
    assert all(torch.equal(value, second["state_dict"][key]) for key, value in best["state_dict"].items())


def test_the_best_of_several_are_known_after_a_resume(run, tmp_path):
    """Of five epochs, each better than the one before, the last two are kept."""
    folder, metrics = run(NUMBERED, "test=false", "optimizer.lr=0.01", "trainer.max_epochs=3")
    kept = {path.name for path in (folder / "checkpoints").glob("epoch*")}
    assert kept == {"epoch1.ckpt", "epoch2.ckpt"}
    moved = folder.rename(tmp_path / "moved")
    resumed = resume(moved, trainer__max_epochs=5)
    assert resumed["best/val/elbo"] > metrics["best/val/elbo"]
    kept = {path.name for path in (moved / "checkpoints").glob("epoch*")}
    assert kept == {"epoch3.ckpt", "epoch4.ckpt"}


def test_two_that_write_the_same_file_are_refused(run):
    with pytest.raises(ConfigError, match=r"callbacks: two of them write .*best\.ckpt"):
        run(SECOND % "best")
