"""Sweeps: each cell is trained once, whoever asks for it; nothing that fails or dies ends them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque

import pytest
from helpers.launchers import Fake
from helpers.runs import SMALL, command, curve, environment

from vae_exp.lock import locked
from vae_exp.runs.state import State
from vae_exp.sweeps.job import run_job
from vae_exp.sweeps.plan import Job
from vae_exp.sweeps.sweep import Sweep
from vae_exp.sweeps.table import lines


def sweep(tmp_path, *cells, **options):
    options = {"retry": False, "stop_at_first_failure": False} | options
    made = Sweep(tmp_path / "sweep", tmp_path / "cells", {"a": ",".join(cells)}, **options)
    made.jobs = [
        Job(num, [f"a={cell}"], {"a": cell}, {}, cell, {"monitor": "val/elbo"}) for num, cell in enumerate(cells)
    ]
    made.write()
    return made


def run(made, launcher):
    made.run((job for job in made.jobs if not made.is_settled(job)), launcher)
    return [made.state(job).value for job in made.jobs]


KILLED, FAILED = {"status": "running"}, {"status": "failed", "cause": "numbers", "error": "NonFiniteError: kl is nan"}


def test_what_is_finished_is_taken_as_it_is(tmp_path):
    assert run(sweep(tmp_path, "x", "y"), first := Fake()) == ["finished", "finished"]
    assert run(sweep(tmp_path, "x", "y", "z"), second := Fake()) == ["finished"] * 3
    assert (first.began, second.began) == (["x", "y"], ["z"])
    assert (tmp_path / "sweep" / "2" / "run.json").samefile(tmp_path / "cells" / "z" / "run.json")


def test_what_failed_is_tried_again_only_where_asked(tmp_path):
    assert run(sweep(tmp_path, "x", "y"), Fake(x=FAILED)) == ["failed", "finished"]
    assert run(sweep(tmp_path, "x", "y"), again := Fake()) == ["failed", "finished"]
    assert again.began == []
    assert run(sweep(tmp_path, "x", "y", retry=True), again) == ["finished"] * 2
    assert again.began == ["x"]


def test_what_another_sweep_saw_fail_is_not_trained_again(tmp_path):
    """While the job waits for the lock of its cell."""
    made = sweep(tmp_path, "x")
    made._begin(made.jobs[0], Fake(x=FAILED))
    (tmp_path / "cells" / "x" / "config.yaml").write_text("not read")
    run_job(tmp_path / "cells" / "x")
    assert made.state(made.jobs[0]) is State.FAILED


def test_what_fails_again_is_not_tried_for_ever(tmp_path):
    launcher = Fake(x=FAILED)
    assert run(sweep(tmp_path, "x", retry=True), launcher) == ["failed"]
    assert launcher.began == ["x"]


def test_what_is_killed_is_tried_once_more_and_ends_nothing(tmp_path):
    launcher = Fake(x=[KILLED, {"status": "finished", "metrics": {}}], y=KILLED)
    assert run(sweep(tmp_path, "x", "y", "z"), launcher) == ["finished", "cut off", "finished"]
    assert sorted(launcher.began) == ["x", "x", "y", "y", "z"]


def test_after_the_first_failure_nothing_begins_if_so_asked(tmp_path):
    launcher = Fake(x=FAILED)
    launcher.slots = 1
    assert run(sweep(tmp_path, "x", "y", stop_at_first_failure=True), launcher) == ["failed", "new"]


def test_what_another_sweep_trains_comes_last(tmp_path):
    made, launcher = sweep(tmp_path, "x", "y", "z"), Fake()
    launcher.slots = 1
    with locked(tmp_path / "cells" / "x"):
        jobs = iter(made.jobs)
        held = deque()
        assert made._next(jobs, held, any_left=False).cell == "y"
        assert made._next(jobs, held, any_left=False).cell == "z"
        assert made._next(jobs, held, any_left=True) is None
        assert made._next(jobs, held, any_left=False).cell == "x"


def test_ctrl_c_loses_nothing_and_says_what_never_began(tmp_path):
    made = sweep(tmp_path, "x", "y", "z")
    with pytest.raises(KeyboardInterrupt):
        run(made, Fake(y=KeyboardInterrupt()))
    made.write()
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [job["state"] for job in content["jobs"]] == [State.FINISHED, State.NEW, State.NEW]
    content["jobs"] = content["jobs"][1:]  # the run of the first has no config
    said = list(lines(content | {"command": ["/x/__main__.py", "-m", "a=x,y"]}, made.folder))
    assert said[:2] == ["job 1    never begun a=y", "job 2    never begun a=z"]
    assert said[-1].split() == ["go", "on", "python", "-m", "vae_exp", "-m", "a=x,y"]


def states(folder, name):
    content = json.loads((folder / "outputs" / "sweeps" / name / "sweep.json").read_text())
    return [job["state"] for job in content["jobs"]]


@pytest.mark.slow
def test_a_sweep_loses_no_job_and_a_larger_one_trains_what_is_new(tmp_path, no_torch):
    """The first job diverges; the others are as they would be alone, and nobody needs torch for what is settled."""
    rates = "optimizer.lr=1e30,0.001"
    done = command("-m", *SMALL, rates, "sweep.name=small", cwd=tmp_path)
    assert done.returncode == 2
    assert "job 0    failed      optimizer.lr=1e+30" in done.stdout
    assert "Traceback" not in done.stderr
    assert states(tmp_path, "small") == ["failed", "finished"]
    before = (tmp_path / "outputs" / "sweeps" / "small" / "1" / "metrics.csv").stat().st_mtime_ns
    again = command("-m", *SMALL, rates, "sweep.name=small", cwd=tmp_path, PYTHONPATH=no_torch)
    assert again.stdout.splitlines()[-8:] == done.stdout.splitlines()[-8:], again.stderr
    shown = command("small", module="vae_exp.sweep", cwd=tmp_path, PYTHONPATH=no_torch)
    assert (shown.returncode, shown.stdout.splitlines()) == (0, again.stdout.splitlines()[1:])

    done = command("-m", *SMALL, f"{rates},0.002,0.0020", "sweep.name=large", cwd=tmp_path)
    assert done.returncode == 2
    assert states(tmp_path, "large") == ["failed", "finished", "finished", "finished"]
    large = tmp_path / "outputs" / "sweeps" / "large"
    assert (tmp_path / "outputs" / "sweeps" / "small" / "1" / "metrics.csv").stat().st_mtime_ns == before
    assert len(list((tmp_path / "outputs" / "cells").iterdir())) == 3
    record = json.loads((large / "2" / "run.json").read_text())
    assert record["overrides"] == [*SMALL, "optimizer.lr=0.002"]
    assert record["choices"]["model"] == "vae"
    assert (record["sweep"], record["epochs"], record["steps"]) == ("large", 2, 6)

    alone = command(*SMALL, "optimizer.lr=0.002", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0
    assert curve(large / "2") == curve(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["serial", "processes", "slurm launcher.cluster=local"])
def test_in_a_sweep_each_job_may_have_several_processes(tmp_path, launcher):
    words = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "seed=0,1,2", "sweep.name=s")
    done = command("-m", *SMALL, *words, *f"launcher={launcher}".split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path, "s") == ["finished"] * 3


@pytest.mark.slow
def test_two_sweeps_at_once_share_their_cells(tmp_path):
    lines = [
        [sys.executable, "-m", "vae_exp", "-m", *SMALL, f"seed={seeds}", f"sweep.name={name}"]
        for name, seeds in (("a", "0,1,2"), ("b", "2,1,0"))
    ]
    both = [subprocess.Popen(line, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) for line in lines]
    for process in both:
        process.communicate(timeout=300)
        assert process.returncode == 0
    runs = list((tmp_path / "outputs" / "cells").iterdir())
    assert len(runs) == 3
    for folder in runs:
        assert len(json.loads((folder / "run.json").read_text())["starts"]) == 1
        assert [row["epoch"] for row in curve(folder) if row["val/elbo"]] == ["0", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("serial", signal.SIGINT),
        ("serial", signal.SIGTERM),
        ("processes", signal.SIGINT),
        ("processes", signal.SIGKILL),
    ],
)
def test_when_a_sweep_is_stopped_no_job_is_left(tmp_path, launcher, number):
    """Ctrl-C is told; after `kill -9` the jobs end by themselves."""
    words = [*SMALL, "trainer.max_epochs=2000", "seed=0,1", "sweep.name=s", f"launcher={launcher}"]
    line = [sys.executable, "-m", "vae_exp", "-m", *words]
    with subprocess.Popen(line, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        curves = []
        while not curves or curves[0].read_text().count("\n") < 5:
            time.sleep(0.2)
            curves = list(tmp_path.rglob("metrics.csv"))
            assert process.poll() is None
        os.kill(process.pid, number)
        said = process.stdout.read()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number != signal.SIGKILL:
        assert "never begun seed=1" in said
        assert "\ngo on" in said
    (folder,) = (tmp_path / "outputs" / "cells").iterdir()
    with locked(folder):  # the job frees it at its end
        assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
