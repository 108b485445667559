"""Finds and downloads the files of a data set, and says what to do if neither works."""

import hashlib
import shutil
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import final
from urllib.error import HTTPError

from torch.hub import tqdm

from vae_exp.data.locks import locked

TIMEOUT = 10.0  # seconds without a byte
SLOWEST = 1_000  # bytes a second, over TIMEOUT
LONGEST = 3600.0  # seconds for a file
LARGEST = 500_000_000  # bytes of a file; the largest of ours, of SVHN, has 182 million
TRIES = 3  # if a server fails, or ends before the end
PAUSE = 1.0  # seconds between two of them


@final
@dataclass(frozen=True)
class FileSet:
    """Files that belong together, searched in `folders` (below data.root) in this order.

    The first folder has the distributor's layout and receives the download. Each file may have one of `suffixes`.
    `offline` says where else to get the files.
    """

    title: str
    names: tuple[str, ...]
    folders: tuple[str, ...]
    offline: str = ""
    suffixes: tuple[str, ...] = ("",)

    def find(self, root: Path) -> list[Path]:
        """Paths in the order of `names`."""
        folder, found = self._best(root)
        if len(found) < len(self.names):
            raise self._missing(folder, found)
        return list(found.values())

    def fetch(self, root: Path, get: Callable[[Path], Path]) -> None:
        """Download the files unless they are there.

        get(scratch) downloads into an empty folder, verifies, and returns the folder that then holds the files; only
        after that they get their final names.
        """
        folder, found = self._best(root)
        if len(found) == len(self.names):
            return
        target = root / self.folders[0]
        try:
            target.mkdir(parents=True, exist_ok=True)
            with scratch_in(target) as scratch:
                if len(self._best(root)[1]) < len(self.names):  # another process may have been faster
                    complete = get(scratch)
                    for name in self.names:
                        (complete / name).replace(target / name)
        except (OSError, HTTPException, RuntimeError, ValueError) as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            raise self._missing(folder, found, f"  download failed: {reason}") from error

    def _best(self, root: Path) -> tuple[Path, dict[str, Path]]:
        """The folder that holds the most files, the first one if several do, and these files."""
        candidates = [(root / folder, self._found(root / folder)) for folder in self.folders]
        return max(candidates, key=lambda candidate: len(candidate[1]))

    def _found(self, folder: Path) -> dict[str, Path]:
        named = ((name, folder / (name + suffix)) for name in self.names for suffix in self.suffixes[::-1])
        return {name: path for name, path in named if path.is_file()}  # the first suffix wins

    def _missing(self, folder: Path, found: dict[str, Path], *reason: str) -> FileNotFoundError:
        lines = [
            f"{self.title}: no {', '.join(name for name in self.names if name not in found)}",
            f"  belongs in {folder.absolute()}",
            *reason,
            "  offline: put the files there, or set data.root=FOLDER to where they are",
            *([f"  {self.offline}"] if self.offline else []),
            "  data=mnist_5k and data=digits need no download",
        ]
        return FileNotFoundError("\n".join(lines))


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """An empty folder inside `folder` for one process at a time; what a killed process left there is removed."""
    with locked(folder) as is_alone:
        for left in folder.glob("*.part") if is_alone else ():
            shutil.rmtree(left, ignore_errors=True)
        with TemporaryDirectory(suffix=".part", dir=folder) as scratch:
            yield Path(scratch)


def download(url: str, path: Path, verify: Callable[[Path], object]) -> None:
    """Writes what `url` serves to `path`; verify(path) raises ValueError if it is not the file.

    Raises:
        OSError: If the server fails several times, is silent or too slow, or serves without end.
        ValueError: If it is not the file.
    """
    end = time.monotonic() + LONGEST
    for tries_left in reversed(range(TRIES)):
        try:
            _receive(url, path, end)
            break
        except (ConnectionError, HTTPError) as error:
            if not tries_left or (isinstance(error, HTTPError) and error.code < 500):
                raise
            time.sleep(PAUSE)
    try:
        verify(path)
    except ValueError as error:
        raise ValueError(f"{url} served {path.stat().st_size} bytes that are not this file") from error


def _receive(url: str, path: Path, end: float) -> None:
    """One try."""
    with _answer(url) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=total or None, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
            size = counted = 0
            checked = time.monotonic()
            while chunk := answer.read1(1 << 16):
                size += file.write(chunk)
                bar.update(len(chunk))
                now = time.monotonic()
                if max(size, total) > LARGEST:
                    raise OSError(f"{url} serves more than {LARGEST:,} bytes")
                if now > end:
                    raise TimeoutError(f"{url}: not done after {LONGEST:.0f} seconds")
                if now - checked > TIMEOUT:
                    if size - counted < SLOWEST * TIMEOUT:
                        raise TimeoutError(f"{url}: fewer than {SLOWEST} bytes a second")
                    checked, counted = now, size
    if size < total:
        raise ConnectionError(f"{url} ended after {size} of {total} bytes")


def _answer(url: str) -> HTTPResponse:
    """The answer to a request, its body unread. A server may send its header byte by byte, so a thread waits for it."""
    future: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            future.set_result(urllib.request.urlopen(url, timeout=TIMEOUT))  # noqa: S310
        except Exception as error:  # of any type: it is raised where it was asked
            if isinstance(error, HTTPError):
                error.close()
            future.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return future.result(2 * TIMEOUT)
    except TimeoutError as error:
        future.add_done_callback(_close)
        raise TimeoutError(f"{url}: timed out") from error


def _close(late: Future[HTTPResponse]) -> None:
    """Closes an answer that nobody waits for any more."""
    if not late.exception():
        late.result().close()


def check_md5(path: Path, md5: str) -> None:
    """Raises ValueError if the file has another checksum."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise corrupt(path, f"md5 {digest}, not {md5}")


def corrupt(path: Path, why: str) -> ValueError:
    """The error for a file that is not what its name says."""
    advice = "delete or move it to download it again, or put an intact copy there"
    return ValueError(f"{path.absolute()} is corrupt: {why}\n  {advice}")
