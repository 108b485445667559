"""`run.json`: what started a run and on which machine, what its numbers bound, and how it ended."""

import logging
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vae_exp.config import ConfigError
from vae_exp.ledger import NonFiniteError
from vae_exp.records import read_record
from vae_exp.runs.folder import write_json

__all__ = ["Record", "note_end"]

PACKAGES = ("vae_exp", "torch", "pytorch-lightning", "hydra-core", "omegaconf", "zuko", "numpy", "wandb")

log = logging.getLogger("vae_exp")


class Record:
    """The record of a run, written when it starts and again when it ends.

    A resumed run keeps its identity and appends to the list of its `starts`.

    Arguments:
        folder: The run folder.
        run_id: The id, used if the run is new.
        content: What else the caller knows about the run.
    """

    def __init__(self, folder: Path, run_id: str, **content: Any) -> None:
        self.path = folder / "run.json"
        earlier = read_record(folder)
        if not earlier and self.path.exists():
            log.warning("a new record begins; the damaged one is kept as %s.damaged", self.path)
            self.path.replace(self.path.with_name("run.json.damaged"))
        self.content: dict[str, Any] = {"run_id": run_id, **earlier, **content, "status": "running"}
        for key in ("error", "cause"):
            self.content.pop(key, None)
        start = {"time": time.strftime("%Y-%m-%d %H:%M:%S%z"), "argv": sys.argv, "git": _git(), **_machine()}
        self.content["starts"] = [*earlier.get("starts", []), start]
        self._clock = time.perf_counter()
        write_json(self.path, self.content)

    @property
    def run_id(self) -> str:
        """The id of the run; resuming does not change it."""
        return self.content["run_id"]

    def finish(self, error: BaseException | None, status: str = "finished", **content: Any) -> None:
        """Writes how the run ended.

        Arguments:
            error: The error that stopped the run, None if there was none.
            status: What to call an end without error: finished, or pruned by a search.
            content: Results.
        """
        # For a resumed run this is the sum over its starts.
        seconds = self.content.get("wall_seconds", 0.0) + time.perf_counter() - self._clock
        self.content |= {"wall_seconds": round(seconds, 2), **content}
        self.content |= _end(error) if error else {"status": status}
        write_json(self.path, self.content)


def note_end(folder: Path, error: BaseException) -> None:
    """Writes into `run.json` how a run ended that has no open record."""
    write_json(folder / "run.json", read_record(folder) | _end(error))


def _end(error: BaseException) -> dict[str, str]:
    status = "failed" if isinstance(error, Exception) else "interrupted"
    named: BaseException = error
    if isinstance(error, SystemExit):  # Lightning turns Ctrl-C into SystemExit(1)
        named = error.__cause__ if error.__cause__ else KeyboardInterrupt()
    elif isinstance(error.__cause__, NonFiniteError):
        named = error.__cause__
    words = str(error) if named is error and isinstance(error, ConfigError) else f"{type(named).__name__}: {error}"
    return {"status": status, "error": words, "cause": _cause(error)}


def _cause(error: BaseException) -> str:
    """Where an end comes from: `config`, `numbers` or `machine`; the last may be another if the run is repeated."""
    import torch

    while isinstance(error, ConfigError) and error.__cause__ is not None:
        error = error.__cause__  # what a user is told in few lines
    if isinstance(error, NonFiniteError):
        return "numbers"
    is_of_machine = isinstance(error, MemoryError | torch.OutOfMemoryError | OSError)
    return "machine" if is_of_machine or not isinstance(error, Exception) else "config"


def _git() -> dict[str, Any] | None:
    """The commit of the git checkout that holds the package, and whether files differ from it; None without git."""

    def git(*args: str) -> str:
        folder = Path(__file__).parent
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> dict[str, Any]:
    import torch

    return {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()
