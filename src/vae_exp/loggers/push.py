"""Pushes what W&B logged offline, by W&B's own `wandb sync`."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from vae_exp.config import ConfigError
from vae_exp.lock import is_held
from vae_exp.loggers.wandb import link, offline_files
from vae_exp.records import read_record, whole_or
from vae_exp.saved import read_config

__all__ = ["push"]

LONGEST = 600  # seconds for a run: `wandb sync` waits for a server without end
SILENT = "no answer from W&B"

log = logging.getLogger("vae_exp")


def push(folders: Sequence[Path]) -> None:
    """Pushes the offline files of runs, one after another, and tells of each run what became of it.

    Arguments:
        folders: Run folders.

    Raises:
        ConfigError: At the end, if W&B did not take all of them.
    """
    failed, answers = 0, True
    for folder in folders:
        home, run_id = _home(folder)
        files = offline_files(home, run_id)
        for file in files:
            link(file.parent, folder)
        unsent = [file for file in files if not _marker(file).exists()]
        if not files:
            log.info("nothing offline %s", folder)
        elif not unsent:
            log.info("already pushed  %s", folder)
        elif is_held(folder):
            log.info("still running   %s: push it when it has ended", folder)
        elif reason := next(filter(None, map(_sync, unsent)), "") if answers else "not tried, as W&B did not answer":
            failed += 1
            answers = answers and not reason.startswith(SILENT)
            log.error("failed          %s: %s", folder, reason)
        else:
            log.info("pushed          %s", folder)
    if failed:
        raise ConfigError(f"{failed} of {len(folders)} runs were not pushed, see above; the same command tries again")


def _marker(file: Path) -> Path:
    """What `wandb sync` leaves beside a file that the server has taken."""
    return file.with_name(f"{file.name}.synced")


def _home(folder: Path) -> tuple[Path, str]:
    """The folder that holds W&B's folder, and the id of the run."""
    cfg = whole_or(OmegaConf.create(), read_config, folder / "config.yaml")
    stated = OmegaConf.select(cfg, "logger.wandb.dir", throw_on_resolution_failure=False)
    return Path(stated or folder), read_record(folder).get("run_id", "")


def _sync(file: Path) -> str:
    """Why W&B did not take a file; empty if it did."""
    wandb = shutil.which("wandb") or str(Path(sys.executable).with_name("wandb"))
    try:
        done = subprocess.run(  # noqa: S603
            [wandb, "sync", str(file.parent)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LONGEST
        )
    except OSError as error:
        return f"{wandb}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{SILENT} in {LONGEST} seconds"
    if done.returncode == 0 and _marker(file).exists():
        return ""
    said = [line.removeprefix("wandb: ") for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in said if "rror" in line and "error logs at" not in line]
    return (errors or said or [f"wandb sync ended with {done.returncode}"])[-1]
