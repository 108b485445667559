"""Cells: what fixes their name, and where they stand by record and lock."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
from helpers.runs import SMALL, composed, environment
from omegaconf import OmegaConf

from vae_exp.sweeps import cell
from vae_exp.sweeps.cell import State, identity, is_held, locked, state_of


def config(*words):
    return OmegaConf.to_container(composed(*SMALL, *words))


SAME = (
    "logger=none", "report=true", "name=other", "data.root=/elsewhere", "+callbacks.curves=null", "latent_dim=3.0",
    "trainer.enable_progress_bar=true", "expected={metric: test/elbo, value: 1, tolerance: 2}", "trainer.devices=[0]",
    "sweep.retry=true", "launcher=processes",
)  # fmt: skip
OTHER = (
    "seed=1", "latent_dim=4", "data.seed=1", "likelihood=sse", "trainer.max_epochs=3", "trainer.devices=2",
    "trainer.accelerator=auto", "callbacks.latents=null", "test=false", "trainer.precision=bf16-mixed",
)  # fmt: skip


@pytest.mark.parametrize("word", SAME)
def test_what_changes_no_number_is_one_cell(word):
    words = [] if word == "latent_dim=3.0" else [word]
    other = config(*(word.replace("+callbacks.curves=null", "callbacks.curves=null") for word in words))
    if not words:
        other["latent_dim"] = 3.0
    assert identity(other) == identity(config())


@pytest.mark.parametrize("word", OTHER)
def test_what_changes_a_number_is_another_cell(word):
    assert identity(config(word)) != identity(config())


def test_a_change_of_the_code_that_changes_numbers_is_another_cell(monkeypatch):
    before = identity(config())
    monkeypatch.setattr(cell, "VERSION", cell.VERSION + 1)
    assert identity(config()) != before


def test_the_users_own_code_data_and_weights_are_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cfg = config()
    (tmp_path / "own_part.py").write_text("a = 1")
    cfg["prior"]["_target_"] = "own_part.Prior"
    first = identity(cfg)
    (tmp_path / "own_part.py").write_text("a = 2")
    assert identity(cfg) != first

    cfg = config()
    cfg["data"]["source"]["path"] = str(tmp_path / "own.npz")
    none = identity(cfg)
    (tmp_path / "own.npz").write_text("1")
    one = identity(cfg)
    (tmp_path / "own.npz").write_text("12")
    assert len({none, one, identity(cfg)}) == 3

    weights = []
    for name in ("a", "b", "c"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.ckpt").write_text("same" if name != "c" else "other")
        weights.append(identity(deepcopy(config()) | {"init_from": str(tmp_path / name)}))
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (None, State.NEW),
        ({"status": "new"}, State.NEW),
        ({"status": "running"}, State.CUT_OFF),
        ({"status": "interrupted", "cause": "machine"}, State.CUT_OFF),
        ({"status": "failed", "cause": "machine"}, State.CUT_OFF),
        ({"status": "failed", "cause": "config"}, State.FAILED),
        ({"status": "failed", "cause": "numbers"}, State.FAILED),
        ({"status": "finished"}, State.FINISHED),
    ],
)
def test_where_a_cell_stands_is_what_its_run_recorded(tmp_path, record, state):
    if record is not None:
        (tmp_path / "run.json").write_text(json.dumps(record))
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.ckpt").touch()  # says nothing
    assert state_of(tmp_path) is state


def test_a_killed_process_frees_its_lock(tmp_path):
    """Only then does a cell that is not closed count as cut off."""
    (tmp_path / "run.json").write_text('{"status": "running"}')
    holds = "import sys, time, pathlib; from vae_exp.sweeps.cell import locked\n"
    holds += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    line = [sys.executable, "-c", holds, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        assert state_of(tmp_path) is State.RUNNING
        with locked(tmp_path, wait=False) as is_mine:
            assert not is_mine
        process.kill()
    assert state_of(tmp_path) is State.CUT_OFF
    with locked(tmp_path) as is_mine:
        assert is_mine
        assert is_held(tmp_path)


def test_without_locks_of_the_kernel_a_heartbeat_holds_a_folder(tmp_path, monkeypatch):
    def refuse(self, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(cell.FileLock, "acquire", refuse)
    with locked(tmp_path) as is_mine:
        assert is_mine
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
