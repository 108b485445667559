"""Files that are written whole or not at all, and never through a link. Imports nothing heavy."""

import errno
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["FULL", "LogFile", "appended", "clear_parts", "written"]

# What a disk answers that takes no more.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def written(path: Path, mode: str = "w", **how: Any) -> Iterator[IO[Any]]:
    """A file that takes the place of `path` at the end of the block, when all of it is on the disk.

    If the block fails, `path` stays as it was and nothing else is left. A link at `path` is replaced, not followed: a
    run folder may come from somebody else, and its links lead anywhere.

    Arguments:
        path: The file.
        mode: `w` or `wb`.
        how: Further arguments of `open`.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # a name that nobody knows before
    try:
        with open(os.open(part, NEW, 0o666), mode, **{"encoding": None if "b" in mode else "utf-8", **how}) as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            raise type(error)(error.errno, error.strerror, str(path)) from error  # its own name tells nobody anything
        raise


def clear_parts(folder: Path) -> None:
    """Removes what `written` leaves in a folder and those below it when its process is killed."""
    for part in folder.rglob(f".{'[0-9a-f]' * 16}.part"):
        part.unlink(missing_ok=True)


def appended(path: Path, mode: str = "a", **how: Any) -> IO[Any]:
    """A file open at its end, in mode `a` or `ab`. A link at `path` is removed, not followed."""
    if path.is_symlink():
        path.unlink()
    return path.open(mode, **how)


class LogFile(logging.FileHandler):
    """A log that is not written through a link."""

    def _open(self) -> Any:
        return appended(Path(self.baseFilename), self.mode, encoding=self.encoding, errors=self.errors)
