"""One job, from its folder: `python -m vae_exp --job FOLDER` trains what the resolved config in it says."""

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig

from vae_exp.cli import exit_on_sigterm
from vae_exp.config import ConfigError
from vae_exp.files import LogFile, clear_parts
from vae_exp.lock import LOCKS, locked
from vae_exp.records import read_record
from vae_exp.runs.record import note_end
from vae_exp.runs.resume import start_of
from vae_exp.runs.state import State, state_of
from vae_exp.runs.targets import check_paths, check_targets
from vae_exp.saved import digest, read_config
from vae_exp.sweeps.sweep import LIFELINE
from vae_exp.training.job import train

__all__ = ["job_process", "run_job"]

KEPT = ("config.yaml", "run.json", "train.log", *LOCKS)  # when a run begins anew

log = logging.getLogger("vae_exp")


def job_process(folder: Path, wrote: str = "") -> int:
    """The whole of a process that runs one job, or joins one as a further process of DDP.

    Arguments:
        folder: Of the run.
        wrote: The digest of its config, from who wrote it.

    Returns:
        The exit code: 0, 2 for what a user can mend, 130 after Ctrl-C; SIGTERM exits with 143.
    """
    exit_on_sigterm()
    logging.raiseExceptions = False  # see `cli.exit_code`
    if os.environ.get("LOCAL_RANK", "0") != "0":
        try:
            train(_config(folder, wrote), folder)
        except ConfigError:  # the first process reports it
            return 2
        except KeyboardInterrupt:
            return 130
        return 0
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    if LIFELINE in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[LIFELINE]),), daemon=True).start()
    try:
        run_job(folder, wrote)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run_job(folder: Path, wrote: str = "") -> None:
    """Trains the run of a folder to its end, unless it has one; what was cut off goes on from its last checkpoint.

    Only one process does so at a time, the others wait for it.

    Arguments:
        folder: Of the run.
        wrote: The digest of its config, from who wrote it. Any other config may name parts alone, as that of any run.

    Raises:
        ConfigError: If there is no config, or the run fails for a reason that a user can mend; `run.json` records it.
    """
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"--job {folder}: it has no config.yaml. A sweep writes it: python -m vae_exp -m ...")
    with locked(folder), _log_in(folder):
        clear_parts(folder)
        before = read_record(folder)
        if state_of(folder) in (State.FINISHED, State.FAILED):  # by another sweep, while this one waited for the lock
            return
        cfg = _config(folder, wrote)
        cfg.resume = str(folder.resolve()) if _can_go_on(folder) else None
        if not cfg.resume:
            _clear(folder)
        try:
            train(cfg, folder)
        except BaseException as error:
            after = read_record(folder)
            if after == before or after.get("status") == "running":  # it failed before it began
                with suppress(OSError):  # a full disk; `error` says so
                    note_end(folder, error)
            raise


def _config(folder: Path, wrote: str) -> DictConfig:
    """The config of a job; one that is not as it was written for this job may be anybody's."""
    path = folder / "config.yaml"
    cfg = read_config(path)
    if digest(cfg) != wrote:
        check_targets(cfg, path)
        check_paths(cfg, path, DictConfig({}))
    return cfg


def _can_go_on(folder: Path) -> bool:
    if read_record(folder).get("status", "new") == "new":
        return False
    try:
        return start_of(folder) is not None
    except ConfigError as error:
        log.warning("%s; the run begins anew", error)
        return False


def _clear(folder: Path) -> None:
    """Removes what a run that never saved has left, or its rows would be before those of the new one."""
    for path in folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _log_in(folder: Path) -> Iterator[None]:
    """Within it, what is logged is also written to `train.log` of the folder."""
    handler = LogFile(folder / "train.log")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _end_with(pipe: int) -> None:
    """Ends this process as soon as the sweep that started it is gone."""
    os.read(pipe, 1)  # returns when the other end is closed, which the kernel does for a killed process
    os.kill(os.getpid(), signal.SIGTERM)
