"""What every test has: one thread, and the fixtures."""

import inspect
import os
import re
import shutil
import socket
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import DATA, ROOT, SMALL, composed
from PIL import Image

from vae_exp import plots
from vae_exp.resolvers import register_resolvers
from vae_exp.training.job import train

CHROMIUM = shutil.which("chromium")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    register_resolvers()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What trains whole runs is slow, but for the tests of training itself.

    `VAE_EXP_SAMPLE=0.25:SEED` keeps a quarter of the slow tests and those on data, chosen by the seed.
    """
    for item in items:
        if "run" in item.fixturenames and item.path.name != "test_job.py":
            item.add_marker(pytest.mark.slow)
    share, _, seed = os.environ.get("VAE_EXP_SAMPLE", "1:").partition(":")
    left_out = [
        item
        for item in items
        if (item.get_closest_marker("slow") or item.get_closest_marker("data"))
        and int.from_bytes(sha256(f"{seed} {item.nodeid}".encode()).digest()[:4]) >= float(share) * 2**32
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


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


@pytest.fixture
def drawn(monkeypatch):
    """The last arguments of functions of `plots`, in the place of pictures, which take most of the time."""
    calls = {}

    def instead(function):
        signature = inspect.signature(function)

        def draw(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            assert all(value.isfinite().all() for value in given.arguments.values() if isinstance(value, torch.Tensor))
            calls.update({name: list(v) if isinstance(v, tuple) else v for name, v in given.arguments.items()})
            calls["path"].touch()
            return calls["path"]

        return draw

    for name in ("grid", "scatter", "histogram", "captioned"):
        monkeypatch.setattr(plots, name, instead(getattr(plots, name)))
    return calls


@pytest.fixture(scope="session")
def loopback():
    """This machine's own network, which a machine cut off by `unshare -n` has not."""
    with socket.create_server(("127.0.0.1", 0)) as own:
        try:
            socket.create_connection(own.getsockname(), timeout=1).close()
        except OSError as error:
            pytest.skip(f"no loopback: {error}")


@pytest.fixture
def no_torch(tmp_path):
    """The `PYTHONPATH` where torch cannot be imported: what does not need it does not miss it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text("raise RuntimeError('torch was imported')")
    return os.pathsep.join([str(tmp_path / "path"), str(ROOT / "src")])


@pytest.fixture
def browser(tmp_path):
    """Opens a file; returns what the console said, the DOM, and the picture of it."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")

    def browser(path, width):
        shot = tmp_path / "shot.png"
        flags = (
            "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
            "--disable-component-update", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=30000", "--enable-logging=stderr", f"--window-size={width},2400",
        )  # fmt: skip
        said = ""
        for action in (f"--screenshot={shot}", "--dump-dom"):
            done = subprocess.run(
                [CHROMIUM, *flags, action, path.as_uri()], capture_output=True, text=True, timeout=180, check=True
            )
            said += done.stderr
        return re.findall(r"CONSOLE.*", said), done.stdout, np.asarray(Image.open(shot).convert("L"), dtype=float)

    return browser
