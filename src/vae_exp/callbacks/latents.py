"""The KL of each latent dimension and the number of active ones."""

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.files import written
from vae_exp.ledger import Mean

__all__ = ["Latents"]


class Latents(Callback):
    """The KL of each latent dimension, nats per image, and the number of active dimensions.

    Logs `val/active_units` (and `test/`), the number of dimensions in which the variance of the posterior mean over the
    images is above `threshold` (Burda et al., 2016). Writes the KL per dimension of every validation to
    `kl_per_dim.csv`, one row for each epoch. Each is left out if the distributions do not provide it.

    Arguments:
        threshold: Variance above which a dimension counts as active.
    """

    def __init__(self, threshold: float = 0.01) -> None:
        self.threshold = threshold
        self._moments, self._kl = Mean(), Mean()
        self._rows: list[list[float]] = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._update(outputs["draw"])

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._update(outputs["draw"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kl_per_dim = self._log(trainer, pl_module, "val")
        if kl_per_dim is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        # The same step as in the row of this validation in metrics.csv.
        step = trainer.global_step - 1
        self._rows.append([trainer.current_epoch, step, *(round(kl, 6) for kl in kl_per_dim.tolist())])
        if trainer.is_global_zero:
            with written(Path(trainer.default_root_dir) / "kl_per_dim.csv", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", *(f"z{d}" for d in range(len(kl_per_dim)))])
                writer.writerows(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, so that a resumed run continues the table."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the rows from a checkpoint."""
        self._rows = state_dict["rows"]

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer, pl_module, "test")

    def _update(self, draw: Draw) -> None:
        mean = draw.z_mean
        if mean is not None:
            self._moments.update(torch.cat([mean.sum(dim=0), mean.square().sum(dim=0)]), len(mean))
        if draw.p is not None and draw.kl_per_dim is not None:
            self._kl.update(draw.kl_per_dim.sum(dim=0), len(draw.kl_per_dim))

    def _log(self, trainer: pl.Trainer, model: pl.LightningModule, stage: str) -> Tensor | None:
        """Logs the active units; returns the KL per dimension, or None."""

        def reduce(sums: Tensor) -> Tensor:
            return trainer.strategy.reduce(sums, reduce_op="sum")

        if self._moments.sums is not None:
            mean, square = self._moments.compute(reduce).chunk(2)
            active = (square - mean.square() > self.threshold).sum()
            model.log(f"{stage}/active_units", active.float(), sync_dist=True)
        return None if self._kl.sums is None else self._kl.compute(reduce)
