"""Callbacks of training: checkpoints, pictures, curves, the use of the latents, speed and the progress bar."""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from vae_exp import charts
from vae_exp.config import NoMeaningError
from vae_exp.draws import Draw
from vae_exp.files import written
from vae_exp.ledger import Mean, NonFiniteError
from vae_exp.records import read_rows
from vae_exp.runs.trained import Trained, of_training
from vae_exp.what.make import make

__all__ = ["Checkpoint", "Curves", "Ending", "Latents", "Patience", "Pictures", "Progress", "Speed"]

SHOWN = ("train/loss", "train/elbo", "val/elbo", "val/recon", "val/kl")  # for each epoch, if there is no bar

log = logging.getLogger("vae_exp")


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints, made to work for runs that are interrupted, resumed or moved."""

    counts_steps = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
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
        # Do not save weights whose loss is not finite: training cannot continue from them.
        if not isinstance(exception, NonFiniteError):
            super().on_exception(trainer, pl_module, exception)


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


class Pictures(Callback):
    """Pictures of `vae_exp.what` in the run's `images/`: samples, reconstructions and, for a CVAE, classes.

    They are drawn every few epochs and, with the weights that were tested, at the end; always from validation images.

    Arguments:
        title: The title above each picture.
        every_n_epochs: Number of validations from one drawing to the next.
    """

    def __init__(self, title: str, every_n_epochs: int = 5) -> None:
        self.title = title
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.current_epoch % self.every_n_epochs == 0:
            self._draw(trainer, f"epoch {trainer.current_epoch + 1}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, f"epoch {trainer.current_epoch}")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        has_best = (Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt").exists()
        self._draw(trainer, "as tested", "best" if has_best else "last")

    def _draw(self, trainer: pl.Trainer, when: str, checkpoint: str = "") -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or "val" not in trainer.datamodule.splits:  # type: ignore[attr-defined]
            return
        trained = of_training(trainer, f"{self.title}, {when}", checkpoint)
        model = trained.model
        was_training, device = model.training, model.device
        model.eval()
        # Every drawing uses the same latents, to show what training changes. The noise of training is not affected.
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            made = [what for what in ("reconstructions", "samples", "classes") if self._make(trained, what, when)]
        model.train(was_training)
        pictures = [trained.folder / "images" / what / f"{what}.png" for what in made]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for path in pictures:
                    logger.log_image(f"images/{path.stem}", [str(path)])

    def _make(self, trained: Trained, what: str, when: str) -> bool:
        """Whether the picture makes sense for this model."""
        try:
            make(trained, what, by=f"training, {when}")
        except NoMeaningError:
            return False
        return True


class Curves(Callback):
    """`images/elbo.png`: the ELBO over the steps, from `metrics.csv`; for an autoencoder `recon.png`."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        bounds = pl_module.bounds
        term, label = ("recon", "-log p(x|z)") if bounds is None else ("elbo", f"ELBO (bounds {bounds})")
        drawn = charts.curves(read_rows(folder / "metrics.csv"), term, f"{label}, nats per image", self.title)
        if trainer.is_global_zero and drawn is not None:
            (folder / "images").mkdir(exist_ok=True)
            charts.save(drawn, folder / "images" / f"{term}.png", "training")


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
            pl_module.log("train/images_per_second", images / self._seconds)
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
