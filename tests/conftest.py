"""What the tests share: configs as the command line composes them, and small runs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae_exp.cli import register_resolvers
from vae_exp.config import CONF
from vae_exp.evaluate import evaluate_runs
from vae_exp.generate import generate_runs
from vae_exp.training.job import train

DATA = Path(os.environ.get("VAE_EXP_DATA", Path(__file__).parents[2] / "shared" / "data"))
# A model of a few thousand weights on 8x8 images made on the fly: a run takes 0.2 s, with its pictures 1.2 s.
SMALL = """
data=fake data.image_shape=[1,8,8] data.source.size=64 data.val_size=16 data.batch_size=16 latent_dim=3
encoder.hidden=[8] encoder.out_features=8 decoder.hidden=[8] trainer.accelerator=cpu trainer.max_epochs=2
trainer.log_every_n_steps=1 trainer.enable_progress_bar=false logger=csv report=false
callbacks.pictures=null callbacks.curves=null
"""
SMALL = tuple(SMALL.split())
PICTURED = SMALL[:-2]


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    register_resolvers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where everything is there (CI), a test that is skipped is a test that is lost."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("VAE_EXP_NO_SKIPS"):
        report.outcome = "failed"
    return report


@pytest.fixture
def real_data():
    """The folder of the real data sets."""
    if not DATA.is_dir():
        pytest.skip(f"no real data in {DATA}: set VAE_EXP_DATA")
    return DATA


def composed(*overrides: str) -> DictConfig:
    """The resolved config of a command line."""
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


@pytest.fixture
def run(tmp_path):
    """Trains a small model in this process; returns its folder and metrics."""

    def run(*overrides: str, folder: str = "run", small: tuple[str, ...] = SMALL) -> tuple[Path, dict[str, float]]:
        path = tmp_path / folder
        return path, train(composed(*small, *overrides), path)

    return run


def command(*args: str, cwd: Path, module: str = "vae_exp", **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user types it."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environ |= {"OMP_NUM_THREADS": "1", "NETRC": "/nowhere", **env}
    return subprocess.run(
        [sys.executable, "-m", module, *args], cwd=cwd, env=environ, text=True, capture_output=True, timeout=300
    )


def evaluated(folder: Path, *overrides: str) -> dict[str, Any]:
    """The numbers of `python -m vae_exp.evaluate run=folder`."""
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("evaluate", overrides=[f"run='{folder}'", "accelerator=cpu", "progress=false", *overrides])
    (numbers,) = evaluate_runs(cfg).values()
    return numbers


def generated(folder: Path, what: str, *overrides: str) -> dict[str, Any]:
    """The numbers of `python -m vae_exp.generate run=folder what=what`; its pictures are in `folder/generated`."""
    with initialize_config_dir(CONF, version_base="1.3"):
        chosen = [f"run='{folder}'", f"what={what}", "accelerator=cpu", "progress=false", *overrides]
        cfg = compose("generate", overrides=chosen)
    (numbers,) = generate_runs(cfg, what).values()
    return numbers
