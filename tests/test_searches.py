"""Searches: Optuna's study is the cells' record; it goes on, learns from what diverged, and pays once for a point."""

import json
import math

import pytest
from helpers.kills import MOMENT
from helpers.launchers import Fake
from helpers.runs import SMALL, TESTS, command
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from vae_exp.config import CONF, ConfigError
from vae_exp.searches import Grid, Optuna, _distribution
from vae_exp.sweeps.plan import Planner, grid_of
from vae_exp.sweeps.sweep import Sweep

optuna = pytest.importorskip("optuna")


class Valley(Fake):
    """Runs whose ELBO is largest at lr = 0.01; above 0.1 they diverge."""

    def __init__(self, kill=()):
        super().__init__()
        self.kill = kill

    def submit(self, folder):
        lr = float(
            next(word for word in json.loads((folder / "run.json").read_text())["overrides"] if "lr" in word)[13:]
        )
        bad = {"status": "failed", "cause": "numbers", "error": "NonFiniteError: kl is nan"}
        elbo = -((math.log10(lr) + 2) ** 2)
        self.outcomes[folder.name] = bad if lr > 0.1 else {"status": "finished", "metrics": {"best/val/elbo": elbo}}
        if len(self.began) in self.kill:
            self.outcomes[folder.name] = KeyboardInterrupt()
        return super().submit(folder)


LR = "optimizer.lr=tag(log,interval(1e-5,10))"


def search(tmp_path, launcher, trials, *words):
    """The study after a search."""
    made = Sweep(tmp_path / "sweep", tmp_path / "cells", {}, retry=False, stop_at_first_failure=False)
    fixed, several = grid_of([*SMALL, *(words or [LR])])
    with initialize_config_dir(CONF, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        planner = Planner(loader, loader.load_configuration("train", [], RunMode.MULTIRUN), fixed)
        tpe = Optuna(trials)
        made.run(tpe.jobs(made, planner, several), launcher, lambda job: tpe.tell(made, job))
    return tpe._study


@pytest.mark.slow
def test_it_finds_the_valley_and_leaves_where_runs_diverge(tmp_path):
    launcher = Valley()
    launcher.slots = 1
    trials = search(tmp_path, launcher, 40).trials
    rates = [float(trial.params["optimizer.lr"]) for trial in trials]
    assert [trial.number for trial in trials if rates[trial.number] > 0.1]
    diverged = [trial for trial in trials if rates[trial.number] > 0.1]
    assert all(trial.state == optuna.trial.TrialState.COMPLETE and trial.value < -1e11 for trial in diverged)
    assert sum(rate > 0.1 for rate in rates[20:]) < sum(rate > 0.1 for rate in rates[:20])
    assert min(abs(math.log10(rate) + 2) for rate in rates) < 0.3


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_and_repeats_no_point(tmp_path):
    launcher = Valley(kill=[3])
    launcher.slots = 1
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, launcher, 8)
    study = search(tmp_path, again := Valley(), 8)
    assert len(study.trials) == 8
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 8
    assert again.began[0] == launcher.began[-1]  # the one that was cut off comes first
    assert len(again.began) == 5


@pytest.mark.slow
def test_the_same_point_again_costs_nothing(tmp_path):
    launcher = Valley()
    study = search(tmp_path, launcher, 12, "optimizer.lr=0.01,0.001")
    assert len(study.trials) == 12
    assert len(launcher.began) == 2


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("interval(0.5,2)", optuna.distributions.FloatDistribution(0.5, 2)),
        ("tag(log,interval(1e-4,1e-2))", optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)),
        ("int(interval(2,50))", optuna.distributions.IntDistribution(2, 50)),
        ("range(2,9,3)", optuna.distributions.IntDistribution(2, 8, step=3)),
        ("vae,cvae", optuna.distributions.CategoricalDistribution(["vae", "cvae"])),
    ],
)
def test_ranges_are_written_as_hydra_writes_them(text, distribution):
    assert _distribution(OverridesParser.create().parse_overrides([f"a={text}"])[0]) == distribution


def test_a_grid_has_no_intervals():
    with pytest.raises(ConfigError, match="sweep=optuna"):
        Grid().jobs(None, None, grid_of(["a=interval(0,1)"])[1])
    with pytest.raises(ConfigError, match="nothing to search"):
        Optuna(3).jobs(None, None, [])


@pytest.mark.slow
def test_a_whole_study_that_is_killed_twice(tmp_path):
    words = (
        "-m",
        *SMALL,
        "trainer.max_epochs=3",
        "sweep=optuna",
        "sweep.trials=7",
        "sweep.name=s",
        LR.replace("10", "1"),
    )
    kill = "+callbacks.kill._target_=helpers.kills.Kill"
    for moment in ("train 7", "end 1"):
        killed = command(*words, kill, cwd=tmp_path, PYTHONPATH=str(TESTS), **{MOMENT: moment})
        assert killed.returncode < 0
    done = command(*words, kill, cwd=tmp_path, PYTHONPATH=str(TESTS))
    assert done.returncode in (0, 2), done.stderr
    content = json.loads((tmp_path / "outputs" / "sweeps" / "s" / "sweep.json").read_text())
    assert len(content["jobs"]) == 7
    assert {job["state"] for job in content["jobs"]} <= {"finished", "pruned", "failed"}
    assert len({job["cell"] for job in content["jobs"]}) == 7
    assert "best            job" in done.stdout

    two = (*words[:-1], "latent_dim=2,3", "sweep.objectives=[kl,recon]", "sweep.trials=3")
    done = command(*two, "sweep.name=two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "outputs" / "sweeps" / "two" / "sweep.json").read_text())
    points = [(job["metrics"]["val/kl"], job["metrics"]["val/recon"]) for job in content["jobs"]]
    front = {n for n, a in enumerate(points) if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points)}
    assert set(content["front"]) == front
