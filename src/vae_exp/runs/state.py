"""Where a run stands: what its process recorded at its end, and whether a process is at work."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from vae_exp.lock import is_held
from vae_exp.records import read_record

__all__ = ["State", "state_of"]


class State(StrEnum):
    """Where a run stands, by the outcome that it recorded and by its lock."""

    NEW = "new"  # nothing was saved
    RUNNING = "running"  # a process trains it now
    CUT_OFF = "cut off"  # the machine stopped it: it goes on from its last checkpoint
    PRUNED = "pruned"  # a search stopped it: it goes on if another sweep asks for it
    FAILED = "failed"  # its config or its numbers did: it would fail again
    FINISHED = "finished"


def state_of(folder: Path, record: dict[str, Any] | None = None) -> State:
    """Where the run of a folder stands; it is new if there is no such folder.

    A run that was not closed was cut off, unless a process holds its lock. One whose record is damaged is new.

    Arguments:
        folder: Of the run.
        record: What `run.json` says, if it was read already.
    """
    record = read_record(folder) if record is None else record
    status = record.get("status", "new")
    if status == "finished":
        return State.FINISHED
    if status == "failed" and record.get("cause") != "machine":
        return State.FAILED
    held = is_held(folder)
    if held or (held is None and status == "running"):  # where nobody can ask, the record has the word
        return State.RUNNING
    if status == "pruned":
        return State.PRUNED
    return State.NEW if status == "new" else State.CUT_OFF
