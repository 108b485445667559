"""A cell: one training of a sweep, known by the content of its config, in a folder that sweeps share.

Nothing heavy is imported: a sweep learns which cells are finished before it imports torch.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from vae_exp.overrides import OF_SWEEPS
from vae_exp.records import read_record
from vae_exp.runs.folder import fingerprint

__all__ = ["State", "identity", "is_held", "locked", "state_of"]

# Raised with every change of the code that changes the numbers of some run: its cells are then computed again.
VERSION = 1
# What changes no number of a run: where it lies, how it is called, and what is written about it.
FREE = ("allow", "expected", "logger", "name", "report", "resume", *OF_SWEEPS)
FREE_OF = {
    "callbacks": ("curves", "pictures", "progress", "speed"),
    "data": ("root",),
    "trainer": ("enable_model_summary", "enable_progress_bar"),
}


class State(StrEnum):
    """Where a cell stands, by the outcome that its run recorded and by its lock."""

    NEW = "new"  # nothing was saved
    RUNNING = "running"  # a process trains it now
    CUT_OFF = "cut off"  # the machine stopped it: it goes on from its last checkpoint
    PRUNED = "pruned"  # a search stopped it: it goes on if another sweep asks for it
    FAILED = "failed"  # its config or its numbers did: it would fail again
    FINISHED = "finished"


def identity(cfg: dict[str, Any]) -> str:
    """The name of the cell of a config: 16 hexadecimal digits that depend on all that fixes its numbers.

    They also depend on the code of the user's own parts, on the size and time of the user's own data, and on the
    weights that the run starts from.

    Arguments:
        cfg: The resolved config.
    """
    kept = {key: value for key, value in cfg.items() if key not in FREE}
    for key, names in FREE_OF.items():
        kept[key] = {name: value for name, value in (kept.get(key) or {}).items() if name not in names}
    devices = kept["trainer"].get("devices")
    if isinstance(devices, list):  # which of the devices of one kind it is, changes nothing
        kept["trainer"]["devices"] = len(devices)
    if kept.get("init_from"):
        kept["init_from"] = fingerprint(Path(kept["init_from"]) / "checkpoints" / "best.ckpt")
    path = Path(str((kept["data"].get("source") or {}).get("path", "")))
    files = [[file.stat().st_size, file.stat().st_mtime_ns] for file in (path,) if path.name and path.exists()]
    content = [VERSION, _plain(kept), files, _own_code(kept)]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value in which 4 and 4.0 are one."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _own_code(value: Any) -> dict[str, str]:
    """The hash of each of the user's own packages that a `_target_` of the config names."""
    if isinstance(value, list):
        return {name: code for each in value for name, code in _own_code(each).items()}
    if not isinstance(value, dict):
        return {}
    found = _own_code(list(value.values()))
    package = str(value.get("_target_", "")).partition(".")[0]
    if package not in ("", "vae_exp", "torch", *sys.stdlib_module_names):
        spec = find_spec(package)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin and "site-packages" not in origin.parts:
            files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
            found[package] = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return found


def state_of(folder: Path) -> State:
    """Where the cell of a folder stands; it is new if there is no such folder.

    A run that was not closed was cut off, unless a process holds its lock. One whose record is damaged is new.
    """
    record = read_record(folder)
    status = record.get("status", "new")
    if status == "finished":
        return State.FINISHED
    if status == "failed" and record.get("cause") != "machine":
        return State.FAILED
    if is_held(folder):
        return State.RUNNING
    if status == "pruned":
        return State.PRUNED
    return State.NEW if status == "new" else State.CUT_OFF


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a folder, which the kernel frees when the process ends in any way.

    Where the disk has no such lock, it is a file that the holder touches every few seconds.

    Arguments:
        folder: Of the cell; it is made.
        wait: Whether to wait until another process frees the lock.

    Returns:
        Whether the lock is held; always true with `wait`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = -1 if wait else 0
    lock: BaseFileLock = FileLock(folder / "lock", fallback_to_soft=False, poll_interval=0.2)
    try:
        try:
            lock.acquire(timeout=seconds)
        except NotImplementedError:
            lock = SoftFileLease(folder / "lease")
            lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    if not folder.exists():
        return False
    with locked(folder, wait=False) as is_mine:
        return not is_mine
