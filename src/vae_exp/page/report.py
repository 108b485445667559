"""Writes the pages of runs, with the pictures that they need: what `python -m vae_exp.report` does."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from vae_exp.page.pictures import fill_in, undrawn
from vae_exp.page.write import write_page
from vae_exp.runs.folder import each_folder, load_config
from vae_exp.runs.trained import each_run

__all__ = ["report_runs"]

log = logging.getLogger("vae_exp")


def report_runs(cfg: DictConfig) -> dict[Path, Path]:
    """Writes `report.html` into the folder of every run of `cfg.run`, and draws the pictures that it needs.

    Arguments:
        cfg: A config with the keys of `conf/report.yaml`.

    Returns:
        The path of the page, by run folder.

    Raises:
        ConfigError: If there is no such run, or its checkpoint is corrupt.
    """

    def work(folder: Path) -> Path:
        missing = undrawn(folder, load_config(folder))
        refused: dict[str, str] = {}
        alone = DictConfig({**cfg, "run": str(folder)})
        has_weights = (folder / "checkpoints" / f"{cfg.checkpoint}.ckpt").is_file()
        if not has_weights and cfg.checkpoint in ("best", "last"):
            last = folder / "checkpoints" / "last.ckpt"
            way_out = ": with checkpoint=last they can be drawn" if last.is_file() else ""
            refused = dict.fromkeys(missing, f"the run has no checkpoints/{cfg.checkpoint}.ckpt{way_out}")
        elif missing:
            (refused,) = each_run(alone, fill_in).values()
        path = write_page(folder, refused)
        if "wandb" in cfg.logger:
            each_run(alone, lambda trained: trained.log_wandb({}, [path]))
        for reason in dict.fromkeys(refused.values()):
            log.info("left out: %s", reason)
        log.info("%s", path)
        return path

    return each_folder(cfg, work)
