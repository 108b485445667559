"""Runs of an earlier commit, in `fixtures/`: they load, are evaluated and go on as if nothing had changed since."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.runs import SMALL, TESTS, command, composed, evaluated
from hydra.utils import get_object
from omegaconf import OmegaConf

import vae_exp
from vae_exp.config import ConfigError
from vae_exp.runs.build import build

FIXTURES = TESTS / "fixtures"
TARGETS = (FIXTURES / "targets.txt").read_text().split()


@pytest.fixture
def old(tmp_path):
    """A copy, which a test may change."""
    return Path(shutil.copytree(FIXTURES / "old_run", tmp_path / "old_run"))


def rows(path):
    """metrics.csv but for the speed, a dict of numbers a row."""
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v and "per_second" not in k} for row in csv.DictReader(file)]


@pytest.mark.parametrize("target", TARGETS)
def test_what_old_configs_name_is_still_there(target):
    assert callable(get_object(target))


def test_an_old_run_loads(old):
    model = vae_exp.load(old)
    best = torch.load(old / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert model.state_dict().keys() == best.keys()
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_an_old_run_has_its_old_elbo(old):
    recorded = json.loads((old / "run.json").read_text())["metrics"]
    numbers = evaluated(old, "metrics=[elbo]")
    for name in ("elbo", "recon", "kl"):
        assert numbers[name] == pytest.approx(recorded[f"test/{name}"], abs=1e-4)


@pytest.mark.slow
def test_an_old_run_goes_on_as_it_would_have(old, tmp_path):
    done = command(f"resume={old}", "trainer.max_epochs=4", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # The run of two epochs was tested at its end, before it went on.
    resumed = [row for row in rows(old / "metrics.csv") if "test/elbo" not in row or row["epoch"] == 4]
    whole = rows(FIXTURES / "old_run_of_4_epochs.csv")
    assert [row.keys() for row in resumed] == [row.keys() for row in whole]
    for row, expected in zip(resumed, whole, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-4)


REFUSED_TODAY = [
    ("prior=vamp", "objective=wake_sleep", "trains the prior apart from the encoder"),
    ("prior=mixture", "objective=mmd objective.alpha=1", "would never be trained"),
]


@pytest.mark.parametrize(("prior", "objective", "said"), REFUSED_TODAY)
def test_an_old_run_is_scored_although_its_training_would_be_refused_today(run, prior, objective, said):
    folder, metrics = run(prior, "prior.pseudo_inputs=4" if prior == "prior=vamp" else "prior.components=3")
    refused = composed(*SMALL, prior, *objective.split())
    with pytest.raises(ConfigError, match=said):
        build(refused)
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.objective = refused.objective
    OmegaConf.save(cfg, folder / "config.yaml")
    assert evaluated(folder, "metrics=[elbo]")["elbo"] == pytest.approx(metrics["test/elbo"], rel=1e-5)


def test_an_old_run_whose_parts_do_not_fit_is_said_to_be_one(old):
    cfg = OmegaConf.load(old / "config.yaml")
    cfg.posterior.in_features += 1
    OmegaConf.save(cfg, old / "config.yaml")
    with pytest.raises(ConfigError, match=r"old_run cannot be read back by this version of vae_exp\.\nposterior"):
        vae_exp.restore(old)
