"""Runs that are stopped or find their files damaged: a sample of `benchmarks/reliability.py`, each refusal alone."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.runs import ROOT, SMALL, composed, environment, record

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.loggers.view import as_view
from vae_exp.runs.checkpoint import load_checkpoint
from vae_exp.runs.resume import latest, start_of
from vae_exp.training.job import _only_writer, train


@pytest.mark.slow
def test_a_sample_of_the_rounds_survives():
    line = [
        sys.executable,
        str(ROOT / "benchmarks" / "reliability.py"),
        "--rounds",
        "6",
        "--seed",
        "7",
        "--only-rounds",
    ]
    done = subprocess.run(line, env=environment(), text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "run"
    train(composed(*SMALL, "trainer.max_epochs=1"), folder)
    return folder


def flipped(path: Path) -> None:
    """Two bytes in the middle of the largest tensor."""
    content = bytearray(path.read_bytes())
    weight = max(torch.load(path, weights_only=True)["state_dict"].values(), key=torch.numel)
    place = bytes(content).index(weight.numpy().tobytes()) + 2
    content[place] ^= 0xFF
    content[place + 1] ^= 0xFF
    path.write_bytes(content)


def changed(**values):
    def change(path):
        state = torch.load(path, weights_only=True) | values
        torch.save({key: value for key, value in state.items() if value is not None}, path)

    return change


def not_a_number(path):
    state = torch.load(path, weights_only=True)
    next(weight for weight in state["state_dict"].values() if weight.is_floating_point()).fill_(float("nan"))
    torch.save(state, path)


def folder_instead(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "flipped": (flipped, "does not have its checksum"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "its end is missing"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("weights"), "torch did not write it"),
    "list": (lambda path: torch.save([1], path), "no state_dict"),
    "dict": (lambda path: torch.save({"a": 1}, path), "no state_dict"),
    "list of weights": (changed(state_dict=[1]), "no state_dict"),
    "foreign": (lambda path: torch.save({"a": Path()}, path), "other things than tensors"),
    "nan": (not_a_number, "there are nan in"),
    "folder": (folder_instead, "is a folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_a_line_that_names_a_sound_one(sound, tmp_path, name):
    folder = Path(shutil.copytree(sound, tmp_path / "run"))
    path = folder / "checkpoints" / "last.ckpt"
    damage, said = DAMAGES[name]
    damage(path)
    for load in (load_checkpoint, lambda path: start_of(folder)):
        with pytest.raises(ConfigError, match=said) as error:
            load(path)
        assert str(path) in str(error.value)
        assert "best.ckpt" in str(error.value)
        assert "weights_only" not in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_weights_alone_are_evaluated_but_not_resumed(sound):
    best = sound / "checkpoints" / "best.ckpt"
    assert load_checkpoint(best)["state_dict"]
    with pytest.raises(ConfigError, match="cannot be resumed"):
        load_checkpoint(best, to_resume=True)


def test_training_goes_on_from_the_newest_sound_checkpoint(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "run"))
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    assert start_of(folder) == last
    shutil.copy(last, best)
    flipped(last)
    assert start_of(folder) == best
    last.unlink()
    assert start_of(folder) == best
    best.unlink()
    assert start_of(folder) is None


def test_a_run_without_a_checkpoint_begins_anew_as_the_same_run(run, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "run"))
    before = record(folder)
    shutil.rmtree(folder / "checkpoints")
    cfg = composed(*SMALL, "trainer.max_epochs=1")
    cfg.resume = str(folder)
    train(cfg, folder)
    after = record(folder)
    assert after["run_id"] == before["run_id"]
    assert after["metrics"]["test/elbo"] == before["metrics"]["test/elbo"]
    assert len(after["starts"]) == 2


def test_latest_is_the_run_that_was_cut_off_last(tmp_path):
    for number, (name, status) in enumerate((("a", "running"), ("b", "interrupted"), ("c", "finished"))):
        folder = tmp_path / "vae" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(f'{{"status": "{status}"}}')
        os.utime(folder / "run.json", (number, number))
    assert latest(tmp_path) == tmp_path / "vae" / "b"
    shutil.rmtree(tmp_path / "vae" / "b")
    assert latest(tmp_path) == tmp_path / "vae" / "a"
    shutil.rmtree(tmp_path / "vae" / "a")
    with pytest.raises(ConfigError, match="no run was cut off, of 1"):
        latest(tmp_path)


def test_a_run_has_one_writer(tmp_path):
    second = pytest.raises(ConfigError, match="another process is training this run")
    with _only_writer(tmp_path), second, _only_writer(tmp_path):
        pass


class Dies:
    """A logger whose server goes away."""

    def __init__(self):
        self.calls = 0

    def log_metrics(self, metrics, step=None):
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("gone")


def test_a_logger_that_fails_is_one_warning(caplog):
    logger = as_view(Dies, "own")
    for step in range(4):
        logger.log_metrics({}, step)
    assert caplog.text.count("logger.own has failed, the run goes on without it: ConnectionError: gone") == 1
    assert as_view(lambda: 1 / 0, "own") is None


def test_a_full_disk_is_named_with_the_checkpoint_that_is_sound(run, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    done = [0]

    def fsync(file, really=os.fsync):
        done[0] += 1
        return full(file) if done[0] > 9 else really(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ConfigError, match=r"No space left on device; .*last.ckpt is sound") as error:
        run(folder="run")
    assert len(str(error.value).splitlines()) == 1
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_deleted_folder_is_not_made_again(run, tmp_path, monkeypatch):
    import pytorch_lightning as pl

    def delete(self, trainer, *_):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    monkeypatch.setattr(pl.Callback, "on_validation_start", delete)
    with pytest.raises(ConfigError, match="is gone: somebody deleted or moved it"):
        run(folder="run")
    assert not (tmp_path / "run").exists()


def test_what_fails_while_it_is_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="No space") as error, written(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(path)
    assert [path.read_text(), *tmp_path.iterdir()] == ["old", path]
