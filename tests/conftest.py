"""What every test has: one thread, and the fixtures `run` and `real_data`."""

import os
from pathlib import Path

import pytest
import torch
from helpers.runs import DATA, SMALL, composed

from vae_exp.resolvers import register_resolvers
from vae_exp.training.job import train


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


@pytest.fixture
def run(tmp_path):
    """Trains a small model in this process; returns its folder and metrics."""

    def run(*overrides: str, folder: str = "run", small: tuple[str, ...] = SMALL) -> tuple[Path, dict[str, float]]:
        path = tmp_path / folder
        return path, train(composed(*small, *overrides), path)

    return run
