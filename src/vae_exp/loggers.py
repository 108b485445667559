"""Loggers: `metrics.csv`, W&B that never waits for a network, MLflow."""

import csv
import logging
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

__all__ = ["CSV", "make_mlflow", "make_wandb"]

log = logging.getLogger("vae_exp")


class CSV(Logger):
    """`metrics.csv`: one row each time something is logged, written at once.

    Lightning's own CSVLogger deletes the file when a run is resumed; this one continues it.

    Arguments:
        save_dir: The run folder.
        first_step: The first step of this start, 0 for a new run. An existing file keeps only the rows of earlier
            steps, because a resumed run repeats the other steps.
    """

    def __init__(self, save_dir: str, first_step: int) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._keys: list[str] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self._keys = next(csv.reader(file), [])
            self._keep_before(first_step)

    @property
    def name(self) -> str:
        """Empty: the file lies right in the run folder."""
        return ""

    @property
    def version(self) -> str:
        """Empty, likewise."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the config is already in the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends one row; for a new metric the file is written again with one more column."""
        row = {"step": step, **metrics}
        new = [key for key in row if key not in self._keys]
        if new:
            self._rewrite(self._read(), [*self._keys, *new])
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._keys).writerow(row)

    @rank_zero_only
    def _keep_before(self, step: int) -> None:
        self._rewrite([row for row in self._read() if int(row["step"]) < step], self._keys)

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, str]], keys: list[str]) -> None:
        self._keys = keys
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)


def make_wandb(save_dir: str, run_id: str, **kwargs: Any) -> WandbLogger:
    """A W&B logger that works offline if there is no account or no network.

    Arguments:
        save_dir: The run folder.
        run_id: The id of the run; it stays the same when the run is resumed, so that its curves continue.
        kwargs: Further arguments of `WandbLogger`.
    """
    import wandb

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if kwargs.get("offline") or "mode" in kwargs or "WANDB_MODE" in os.environ:
        pass  # the user has decided
    elif not _wandb_answers():
        kwargs["mode"] = "offline"
    # In case the server stops answering.
    settings = wandb.Settings(init_timeout=20, silent=True)
    logger = WandbLogger(save_dir=save_dir, id=run_id, resume="allow", settings=settings, **kwargs)
    logger._wandb_init.pop("anonymous", None)  # Lightning sets it, but W&B no longer knows it and warns
    run = logger.experiment
    log.info("W&B             %s", f"offline in {save_dir}/wandb; later: wandb sync" if run.offline else run.url)
    # Lightning's step is the x axis of each curve, and the summary shows the best bound, not the last one.
    for name in ("train/elbo", "val/elbo", "test/elbo"):
        run.define_metric(name, step_metric="trainer/global_step", summary="max")
    return logger


def _wandb_answers() -> bool:
    """Whether there is a key and a server that accepts it; gives up after ten seconds without an answer."""
    import wandb

    try:
        return wandb.login(prompt=False)
    except (wandb.Error, OSError) as error:
        log.warning("W&B does not answer, logging offline: %s", error)
        return False


def make_mlflow(save_dir: str, run_id: str, tracking_uri: str, **kwargs: Any) -> MLFlowLogger:
    """An MLflow logger whose runs have our run id as a tag.

    Arguments:
        save_dir: The run folder.
        run_id: The id of our run.
        tracking_uri: The address of the store; if it is a local database that does not exist, it is created.
        kwargs: Further arguments of `MLFlowLogger`.
    """
    return MLFlowLogger(tracking_uri=tracking_uri, tags={"run_id": run_id, "folder": save_dir}, **kwargs)
