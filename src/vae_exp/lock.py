"""The lock of a run folder: one process writes there at a time. Imports nothing heavy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

__all__ = ["LOCKS", "is_held", "locked"]

LOCKS = LOCK, LEASE = "lock", "lease"
PATIENCE = 1.0  # seconds: whoever asks only whether a lock is held has it for an instant


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a folder, which the kernel frees when the process ends in any way.

    Where the disk has no such lock, it is a file that the holder touches every few seconds.

    Arguments:
        folder: Of the run; it is made.
        wait: Whether to wait until another process frees the lock.

    Returns:
        Whether the lock is held; always true with `wait`.

    Raises:
        OSError: If the folder or the file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquire(folder, -1 if wait else PATIENCE)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the lock of a folder; None where it may not be asked, as on a disk that is only read."""
    if not any((folder / name).exists() for name in LOCKS):
        return False
    try:
        _acquire(folder, 0).release()
    except Timeout:
        return True
    except OSError:
        return None
    return False


def _acquire(folder: Path, seconds: float) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / LOCK, fallback_to_soft=False, poll_interval=0.2)
    try:
        lock.acquire(timeout=seconds)
    except NotImplementedError:  # this disk has no locks
        lock = SoftFileLease(folder / LEASE)
        lock.acquire(timeout=seconds)
    return lock
