"""What `python -m vae_exp.evaluate` scores, during training."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from vae_exp import charts
from vae_exp.callbacks.beside import beside
from vae_exp.calls import called
from vae_exp.metrics.score import chosen
from vae_exp.records import read_rows

__all__ = ["Scores"]

log = logging.getLogger("vae_exp")


class Scores(Callback):
    """Logs numbers of metrics at validations, of validation images, as `val/*`; draws chosen ones as a picture.

    Arguments:
        metrics: By the name of a metric, its options that differ from `conf/metrics/`:
            `{"amortisation": {"num_images": 100}}`.
        every: Number of validations from one scoring to the next.
        draw: By the name of a number, without its `_N_images`, what it is called in `images/scores.png`; empty for no
            picture.
        unit: Of the vertical axis of the picture.

    Raises:
        ConfigError: If there is no such metric, or it refuses an option.
    """

    def __init__(
        self, metrics: Mapping[str, Mapping[str, Any]], every: int, draw: Mapping[str, str], unit: str
    ) -> None:
        self.every, self.draw, self.unit = every, draw, unit
        self._validations = 0
        with called("evaluate", {"run": "training", "metrics": list(metrics), **metrics}) as cfg:
            self._metrics = chosen(cfg)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validations += 1
        if (self._validations - 1) % self.every:
            return
        with beside(trainer) as trained, torch.enable_grad():
            for name, metric in self._metrics.items():
                trained.reseed(name)
                for key, value in metric.function(trained, **metric.options).items():
                    if isinstance(value, float):
                        pl_module.log(f"val/{key}", value)

    def state_dict(self) -> dict[str, Any]:
        """The validations so far, so that a resumed run scores the same ones."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them from a checkpoint."""
        self._validations = state_dict["validations"]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        rows = read_rows(folder / "metrics.csv")
        logged = dict.fromkeys(key for row in rows for key in row)
        columns = {
            key: label
            for name, label in self.draw.items()
            for key in logged
            if re.fullmatch(rf"val/{re.escape(name)}(_\d+_images)?", key)
        }
        if len(columns) < len(self.draw):
            log.warning("callbacks.scores.draw: of %s only %s were logged", list(self.draw), list(columns))
        drawn = charts.lines(rows, columns, self.unit)
        if trainer.is_global_zero and drawn is not None:
            charts.save(drawn, folder / "images" / "scores.png", "training")
