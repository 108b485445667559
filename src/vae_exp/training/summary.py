"""What a run says at its end: its numbers, its pictures, and which command uses it."""

import logging
import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from vae_exp.overrides import override
from vae_exp.records import read_record
from vae_exp.runs.targets import own_modules

__all__ = ["summarise"]

log = logging.getLogger("vae_exp")


@rank_zero_only
def summarise(cfg: DictConfig, folder: Path, metrics: dict[str, float]) -> None:
    """Writes the last lines of a run to its log.

    Arguments:
        cfg: The resolved config.
        folder: The run folder.
        metrics: Of the run, in the units of its bound.
    """
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    for name in (f"best/{cfg.monitor}", "test/recon", "test/kl", "test/elbo"):
        if name in metrics:
            is_share = name.endswith(("error", "active_units"))
            log.info("%-15s %10.2f %s", name, metrics[name], "" if is_share else _unit(folder))
    if "test/error" in metrics:
        log.info("%-15s %10.4f of the images are classified wrongly", "test/error", metrics["test/error"])
    if cfg.expected:
        if not cfg.expected["metric"].startswith("test/") and cfg.expected["metric"] in metrics:  # of a picture
            log.info("%-15s %10.4g", cfg.expected["metric"], metrics[cfg.expected["metric"]])
        log.info("expected        %10.5g ± %s", cfg.expected["value"], cfg.expected["tolerance"])
    if (folder / "images").is_dir():
        log.info("pictures        %s", folder / "images")
    _how_to_use(folder, own_modules(cfg))


def _unit(folder: Path) -> str:
    return read_record(folder).get("bound", {}).get("units", "nats per image")


def _how_to_use(folder: Path, own: list[str]) -> None:
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not last.exists() and not best.exists():
        log.info("no checkpoint was written, so no command can use this run")
        return
    if not best.exists():
        log.info("there was no validation and so no best checkpoint: the last weights were tested")
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    words = [override("run", folder), *([] if best.exists() else ["checkpoint=last"])]
    words += [f"allow=[{','.join(own)}]"] if own else []
    log.info("next            %s", " ".join([shlex.quote(str(python)), "-m vae_exp.evaluate", *words]))
