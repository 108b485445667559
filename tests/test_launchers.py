"""Launchers: what each job is given. That they train what a single process does is in tests/sweeps/."""

import os
import stat
import sys
import time

import pytest

from vae_exp.config import ConfigError
from vae_exp.launchers import Processes, visible_gpus

SCRIPT = """#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES" >"$4/gpu"; echo "$OMP_NUM_THREADS" >"$4/threads"; echo "$*" >"$4/words"; sleep 0.3
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Folders of jobs, and a program that writes down what it is given in place of Python."""
    program = tmp_path / "python"
    program.write_text(SCRIPT)
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sys, "executable", str(program))
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    return folders


def given(folders, name):
    return [(folder / name).read_text().strip() for folder in folders]


def test_each_job_has_a_gpu_of_its_own_and_its_share_of_the_cores(jobs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    with Processes() as launcher:
        assert launcher.slots == 2
        for future in [launcher.submit(folder) for folder in jobs]:
            future.result()
    gpus = given(jobs, "gpu")
    assert set(gpus[:2]) == set(gpus[2:]) == {"3", "GPU-5"}
    assert given(jobs, "threads") == ["3"] * 4
    assert given(jobs, "words") == [f"-m vae_exp --job {folder}" for folder in jobs]


def test_without_a_gpu_none_is_given_and_the_users_threads_stay(jobs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with Processes(jobs=4) as launcher:
        began = time.monotonic()
        for future in [launcher.submit(folder) for folder in jobs]:
            future.result()
        assert time.monotonic() - began < 4 * 0.3  # at once, not one by one
    assert given(jobs, "gpu") == [""] * 4
    assert given(jobs, "threads") == ["5"] * 4
    with pytest.raises(ConfigError, match="jobs=0"):
        Processes(jobs=0)


def test_gpus_are_counted_without_torch(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho 'GPU 1: B (UUID: b)'\n")
    smi.chmod(0o755)
    assert visible_gpus() == ["0", "1"]
