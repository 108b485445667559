"""Configs as the command line composes them, small runs, and what they leave in their folders."""

import csv
import json
import os
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import CONF
from vae_exp.metrics.score import score_runs
from vae_exp.sweeps.plan import Composer
from vae_exp.training.job import train
from vae_exp.what.make import generate_runs

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DATA = Path(os.environ.get("VAE_EXP_DATA", ROOT.parent / "shared" / "data"))
WHATS = sorted(path.stem for path in (Path(CONF) / "what").glob("*.yaml"))
OF_PICTURES = [what for what in WHATS if what != "impute"]
# A model of a few thousand weights on 8x8 images made on the fly: a run takes 0.2 s, with its pictures 1.2 s.
SMALL = """
data=fake data.image_shape=[1,8,8] data.source.size=64 data.val_size=16 data.batch_size=16 latent_dim=3
encoder.hidden=[8] encoder.out_features=8 decoder.hidden=[8] trainer.accelerator=cpu trainer.max_epochs=2
trainer.log_every_n_steps=1 trainer.enable_progress_bar=false logger=csv report=false
callbacks.pictures=null callbacks.curves=null
"""
SMALL = tuple(SMALL.split())
PICTURED = SMALL[:-2]


@cache
def _composer(name: str) -> Composer:
    with initialize_config_dir(CONF, version_base="1.3"):
        return Composer(GlobalHydra.instance().config_loader(), name)


@cache
def _train(*overrides: str) -> tuple[DictConfig, DictConfig]:
    """Kept, for to compose a config takes longer than to train a small model."""
    cfg = _composer("train").compose(overrides)
    cfg.hydra.mode = cfg.hydra.mode or RunMode.RUN
    HydraConfig.instance().set_config(cfg)
    own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    return cfg, OmegaConf.create(OmegaConf.to_container(own, resolve=True))


@cache
def _on_runs(name: str, *overrides: str) -> DictConfig:
    cfg = _composer(name).compose(["run=''", "accelerator=cpu", "progress=false", *overrides])
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


def composed(*overrides: str) -> DictConfig:
    """The resolved config of a command line."""
    cfg, own = _train(*overrides)
    HydraConfig.instance().set_config(cfg)
    return deepcopy(own)


def composed_on(folder: Path, name: str, *overrides: str) -> DictConfig:
    """The config of a command on the run, or the runs, of `folder`."""
    cfg = deepcopy(_on_runs(name, *overrides))
    if not any(override.startswith("run=") for override in overrides):
        cfg.run = str(folder)
    return cfg


def command(*args: str, cwd: Path, module: str = "vae_exp", **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user types it."""
    line = [sys.executable, "-m", module, *args]
    return subprocess.run(line, cwd=cwd, env=environment(**env), text=True, capture_output=True, timeout=300)


def environment(**env: str) -> dict[str, str]:
    """The variables of a command: one thread, and no account at W&B."""
    here = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    # The user's own modules come before those of who runs the tests.
    modules = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), here.get("PYTHONPATH"))))
    return here | {"OMP_NUM_THREADS": "1", "NETRC": "/nowhere", **env, "PYTHONPATH": modules}


def evaluated(folder: Path, *overrides: str) -> dict[str, Any]:
    """The numbers of `python -m vae_exp.evaluate run=folder`."""
    (numbers,) = score_runs(composed_on(folder, "evaluate", *overrides)).values()
    return numbers


def generated(folder: Path, what: str, *overrides: str) -> dict[str, Any]:
    """The numbers of `python -m vae_exp.generate run=folder what=what`; its pictures are in `folder/images`."""
    (numbers,) = generate_runs(composed_on(folder, "generate", f"what={what}", *overrides), what).values()
    return numbers


def resume(folder: Path, **values: Any) -> dict[str, float]:
    """Goes on with a run in this process; `trainer__max_epochs=4` sets a key of its config."""
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.resume = str(folder)
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return train(cfg, folder)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def pictures(folder: Path) -> set[str]:
    """Names of those in a run folder."""
    return {path.stem for path in (folder / "images").rglob("*.png")}


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the clock's."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]
    return [row for row in rows if any(value for key, value in row.items() if key not in ("step", "epoch"))]


def wandb_records(folder: Path) -> list[dict[str, Any]]:
    """The records of an offline run, by W&B's own reader."""
    (path,) = folder.rglob("*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]
