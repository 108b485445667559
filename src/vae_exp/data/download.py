"""Finds and downloads the files of a data set, and says what to do if neither works."""

import hashlib
import socket
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import torch

TIMEOUT = 10.0  # seconds without a byte


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
            with _socket_timeout(), TemporaryDirectory(suffix=".part", dir=target) as scratch:
                complete = get(Path(scratch))
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


def download(url: str, path: Path, verify: Callable[[Path], object]) -> None:
    """Write what `url` serves to `path`; verify(path) raises ValueError if it is not the file."""
    torch.hub.download_url_to_file(url, str(path))  # shows a progress bar
    try:
        verify(path)
    except ValueError as error:
        raise ValueError(f"{url} served {path.stat().st_size} bytes that are not this file") from error


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


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """If packets are dropped a download would wait for ever; torch.hub and torchvision set no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
