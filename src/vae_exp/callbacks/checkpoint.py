"""Checkpoints of runs that are interrupted, resumed or moved, and what else a resumed run needs to know."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from vae_exp.ledger import NonFiniteError

__all__ = ["Checkpoint", "Ending", "Patience", "Snapshots"]


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints, made to work for runs that are interrupted, resumed or moved.

    Arguments:
        minutes: Longest time between two of them, beside those that `kwargs` ask for; None for any.
        every_n_steps: Number of optimizer steps from one to the next, likewise.
        kwargs: Those of Lightning's `ModelCheckpoint`.

    Raises:
        ValueError: If `minutes` or `every_n_steps` is not positive.
    """

    counts_steps = True

    def __init__(self, minutes: float | None = None, every_n_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("minutes", minutes), ("every_n_steps", every_n_steps)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: a number above 0 is needed, or null")
        self.minutes, self.every_n_steps = minutes, every_n_steps
        self._saved_at = time.monotonic()
        self.metrics: dict[str, float] = {}  # those at the time of the checkpoint that the run goes on from

    @property
    def state_key(self) -> str:
        # Two callbacks that differ only in their file names need two states. `best` and `last` keep the key that
        # Lightning gives them, so that older checkpoints still load.
        key = super().state_key
        return key if self.filename in ("best", "last") else f"{key}{self.filename}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning would take the folder from the first logger.
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            Path(self.dirpath).mkdir(parents=True, exist_ok=True)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not at the end of a batch, whose row in metrics.csv and whose validation are still to come.
        if not self._is_due(trainer) or batch_idx % trainer.accumulate_grad_batches:
            return
        self._saved_at = time.monotonic()
        if self._last_global_step_saved != trainer.global_step and trainer.global_step:
            self._save_checkpoint(trainer, self.format_checkpoint_name(self._monitor_candidates(trainer)))

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        if self.minutes is None:
            return False
        is_due = time.monotonic() - self._saved_at >= 60 * self.minutes
        return trainer.strategy.broadcast(is_due) if trainer.world_size > 1 else is_due

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.metrics = checkpoint.get("metrics", {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best checkpoint if the folder has moved or its path is written in another way. The first
        # validation after a resume would then replace it, even with a worse one.
        def here(path: str) -> str:
            return path and str(Path(self.dirpath or "") / Path(path).name)

        paths = {key: here(path) for key, path in state_dict.items() if key.endswith("_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Training cannot continue from weights whose loss is not finite, nor from the middle of a step, where a second
        # Ctrl-C may stop it; and the weights that are tested are those of another step.
        if trainer.state.fn == "fit" and not isinstance(exception, NonFiniteError | KeyboardInterrupt | OSError):
            super().on_exception(trainer, pl_module, exception)


class Snapshots(Callback):
    """Keeps the weights of chosen steps: `checkpoints/step_N.ckpt` has those after N optimizer steps.

    Arguments:
        at_steps: The numbers N.

    Raises:
        ValueError: If one is below 1.
    """

    counts_steps = True

    def __init__(self, at_steps: Sequence[int] = ()) -> None:
        if any(step < 1 for step in at_steps):
            raise ValueError(f"callbacks.snapshots.at_steps={list(at_steps)}: whole numbers from 1 on are needed")
        self.at_steps = at_steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step in self.at_steps and pl_module.has_stepped:
            path = Path(trainer.default_root_dir) / "checkpoints" / f"step_{trainer.global_step}.ckpt"
            trainer.save_checkpoint(path, weights_only=True)


class Patience(EarlyStopping):
    """Lightning's early stopping, for runs that are cut off between their last checkpoint and their end."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The patience is that of the config, which a resumed run may change.
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning keeps the count in a checkpoint, but not that training was to end.
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Ending(Callback):
    """A callback that may end a run before it is finished; such a run is not tested, and recorded as pruned."""

    has_ended = False
