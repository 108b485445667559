"""Sweeps that are killed as a power cut does it, and go on: their numbers are those of a sweep that was left alone."""

import json
import signal

import pytest
import torch
from helpers.kills import MOMENT, moments
from helpers.runs import SMALL, TESTS, command, curve

FEW = ("trainer.max_epochs=3", "data.eval_batch_size=8", "callbacks.early_stopping.patience=1")
KILL = "+callbacks.kill._target_=helpers.kills.Kill"


def sweep(folder, *words, **env):
    """The end of a sweep of two cells, and what `sweep.json` says."""
    folder.mkdir(exist_ok=True)
    grid = ("seed=0,1", "sweep.name=s")
    done = command("-m", *SMALL, *FEW, KILL, *grid, *words, cwd=folder, PYTHONPATH=str(TESTS), **env)
    return done, json.loads((folder / "outputs" / "sweeps" / "s" / "sweep.json").read_text())


def numbers(folder, jobs):
    """All that the jobs of a sweep computed, but for the clock's."""
    found = []
    for job in jobs:
        run = folder / job["folder"]
        last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        weights = [state["state_dict"] for state in (best, last)]
        metrics = {name: value for name, value in job["metrics"].items() if "second" not in name}
        plain = [{name: value.tolist() for name, value in state.items()} for state in weights]
        found.append((job["state"], metrics, curve(run), (run / "kl_per_dim.csv").read_text(), plain))
    return found


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done, content = sweep(folder)
    assert done.returncode == 0, done.stderr
    return numbers(folder, content["jobs"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("launcher=serial", 8),
        ("launcher=processes launcher.jobs=2", 2),
        ("launcher=slurm launcher.cluster=local", 1),
        ("launcher=ray", 1),
    ],
)
def test_a_sweep_that_is_killed_ends_as_if_it_had_been_left_alone(tmp_path, left_alone, launcher, number):
    words = launcher.split()
    for moment in moments(seed=0, number=number):
        done, _ = sweep(tmp_path, *words, **{MOMENT: moment})
        assert done.returncode in (-signal.SIGKILL, 2, 0), done.stderr  # 0: the job that was killed was tried once more
    done, content = sweep(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    starts = [json.loads((tmp_path / job["folder"] / "run.json").read_text())["starts"] for job in content["jobs"]]
    assert sum(map(len, starts)) > len(starts)
    assert numbers(tmp_path, content["jobs"]) == left_alone
