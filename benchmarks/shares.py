"""A callback that measures how a run spends its time."""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

__all__ = ["Shares"]


class Shares(pl.Callback):
    """Writes `shares.json`: the seconds of training, and of the work between the epochs."""

    def __init__(self) -> None:
        self.seconds = {"training": 0.0, "validation, checkpoints, pictures": 0.0}
        self.last = 0.0

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def on_train_start(self, *_: Any) -> None:
        self.last = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self.lap("validation, checkpoints, pictures")

    def on_validation_start(self, *_: Any) -> None:
        self.lap("training")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.lap("validation, checkpoints, pictures")
        (Path(trainer.default_root_dir) / "shares.json").write_text(json.dumps(self.seconds))
