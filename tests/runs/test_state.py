"""Where a run stands, by its record and its lock."""

import json

import pytest

from vae_exp.runs import state
from vae_exp.runs.state import State, state_of


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (None, State.NEW),
        ({"status": "new"}, State.NEW),
        ({"status": "running"}, State.CUT_OFF),
        ({"status": "interrupted", "cause": "machine"}, State.CUT_OFF),
        ({"status": "failed", "cause": "machine"}, State.CUT_OFF),
        ({"status": "failed", "cause": "config"}, State.FAILED),
        ({"status": "failed", "cause": "numbers"}, State.FAILED),
        ({"status": "finished"}, State.FINISHED),
    ],
)
def test_where_a_run_stands_is_what_its_run_recorded(tmp_path, record, state):
    if record is not None:
        (tmp_path / "run.json").write_text(json.dumps(record))
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.ckpt").touch()  # says nothing
    assert state_of(tmp_path) is state


def test_where_the_lock_may_not_be_asked_the_record_has_the_word(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "is_held", lambda folder: None)
    assert state_of(tmp_path, {"status": "running"}) is State.RUNNING
    assert state_of(tmp_path, {"status": "interrupted"}) is State.CUT_OFF
