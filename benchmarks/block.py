"""A callback that makes each epoch of a Lightning run one block: a turn from its first step to its last step."""

from typing import Any

import pytorch_lightning as pl
from turns import report, start

__all__ = ["Block"]


class Block(pl.Callback):
    """Validation, pictures and checkpoints come between two turns: they belong to the run, not to the training."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.started = start()

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        report(trainer.num_training_batches * 128, self.started)
