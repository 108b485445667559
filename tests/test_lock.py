"""The lock of a run folder."""

import subprocess
import sys

import pytest
from helpers.runs import environment

from vae_exp import lock
from vae_exp.lock import is_held, locked
from vae_exp.runs.state import State, state_of


@pytest.mark.slow
def test_a_killed_process_frees_its_lock(tmp_path):
    """Only then does a run that is not closed count as cut off."""
    (tmp_path / "run.json").write_text('{"status": "running"}')
    holds = "import sys, time, pathlib; from vae_exp.lock import locked\n"
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

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    with locked(tmp_path) as is_mine:
        assert is_mine
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_to_ask_for_a_lock_leaves_no_file(tmp_path):
    assert is_held(tmp_path) is False
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_only_read_does_not_tell(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()

    def refuse(self, **kwargs):
        raise PermissionError

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    assert is_held(tmp_path) is None
