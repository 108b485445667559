"""The speed of training and its progress bar."""

import logging
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

__all__ = ["Progress", "Speed"]

SHOWN = ("train/loss", "train/elbo", "val/elbo", "val/recon", "val/kl")  # for each epoch, if there is no bar

log = logging.getLogger("vae_exp")


class Speed(Callback):
    """Logs `train/images_per_second` of each epoch. Only training is timed, not validation."""

    counts_steps = True

    def __init__(self) -> None:
        self._seconds, self._batches = 0.0, 0
        self._start, self._first = 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._start, self._first = time.perf_counter(), trainer.fit_loop.batch_idx

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # the steps of this call are launched but perhaps not finished
        self._seconds += time.perf_counter() - self._start
        self._batches += trainer.fit_loop.batch_idx - self._first + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._batches:  # 0 if the run was interrupted in its validation and then resumed
            images = self._batches * trainer.datamodule.batch_size  # type: ignore[attr-defined]
            pl_module.log("train/images_per_second", images / self._seconds, sync_dist=True)
        self._seconds, self._batches = 0.0, 0


class Progress(TQDMProgressBar):
    """Lightning's bar without the version number of the logger; without a terminal, one line for each epoch."""

    counts_steps = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            self.disable()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled and trainer.is_global_zero:
            means = {name: trainer.callback_metrics[name] for name in SHOWN if name in trainer.callback_metrics}
            numbers = "".join(f"   {name} {float(mean):.2f}" for name, mean in means.items())
            log.info("epoch %d, %d steps%s", trainer.current_epoch + 1, trainer.global_step, numbers)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.fit_loop.batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
