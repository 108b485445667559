"""What happens beside training: pictures, curves, the use of the latents, the progress bar."""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from vae_exp import charts
from vae_exp.config import NoMeaningError
from vae_exp.draws import Draw
from vae_exp.ledger import Mean, NonFiniteError
from vae_exp.runs.trained import Trained, of_training
from vae_exp.what.make import make

__all__ = ["Checkpoint", "Curves", "Latents", "Pictures", "Progress", "Speed"]

SHOWN = ("train/loss", "train/elbo", "val/elbo", "val/recon", "val/kl")  # of an epoch, where there is no bar

log = logging.getLogger("vae_exp")


class Checkpoint(ModelCheckpoint):
    """Lightning's, of a run that may be interrupted, resumed and moved."""

    counts_steps = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best of another folder, or of another spelling of the same: the first validation
        # after a resume would replace it, however bad.
        here: dict[str, Any] = {"dirpath": self.dirpath}
        if state_dict["best_model_path"]:
            best = str(Path(self.dirpath or "") / Path(state_dict["best_model_path"]).name)
            here |= {"best_model_path": best, "kth_best_model_path": best}
            here |= {"best_k_models": {best: state_dict["best_model_score"]}}
        super().load_state_dict(state_dict | here)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Never with weights that gave no finite loss: there is nothing to go on from.
        if not isinstance(exception, NonFiniteError):
            super().on_exception(trainer, pl_module, exception)


class Latents(Callback):
    """The KL of each latent dimension, nats per image, and the number of active dimensions.

    Logs `val/active_units` (and `test/`), the dimensions in which the posterior mean varies over the images with
    variance above `threshold` (Burda et al., 2016), and keeps the KL per dimension of every validation in
    `kl_per_dim.csv`, one row an epoch. Either is left out where the distributions do not provide it.

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
        # The step of the same validation's row in metrics.csv.
        step = trainer.global_step - 1
        self._rows.append([trainer.current_epoch, step, *(round(kl, 6) for kl in kl_per_dim.tolist())])
        if trainer.is_global_zero:
            with (Path(trainer.default_root_dir) / "kl_per_dim.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", *(f"z{d}" for d in range(len(kl_per_dim)))])
                writer.writerows(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far: a resumed run continues the table from its checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the rows of a checkpoint."""
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
        """Logs the active units; returns the KL per dimension, where there is one."""

        def reduce(sums: Tensor) -> Tensor:
            return trainer.strategy.reduce(sums, reduce_op="sum")

        if self._moments.sums is not None:
            mean, square = self._moments.compute(reduce).chunk(2)
            active = (square - mean.square() > self.threshold).sum()
            model.log(f"{stage}/active_units", active.float(), sync_dist=True)
        return None if self._kl.sums is None else self._kl.compute(reduce)


class Pictures(Callback):
    """Pictures of `vae_exp.what` in the run's `images/`: samples, reconstructions and, for a CVAE, classes.

    Drawn every few epochs and, with the weights that were tested, at the end; always from validation images.

    Arguments:
        title: Above each picture.
        every_n_epochs: Validations between two drawings.
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
        # The same latents at every drawing show what training changes. The noise of training itself is left alone.
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            made = [what for what in ("reconstructions", "samples", "classes") if self._make(trained, what, when)]
        model.train(was_training)
        pictures = [trained.folder / "images" / what / f"{what}.png" for what in made]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for path in pictures:
                    logger.log_image(f"images/{path.stem}", [str(path)])

    def _make(self, trained: Trained, what: str, when: str) -> bool:
        """Whether the picture has a meaning for this model."""
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
        drawn = charts.curves(charts.read_csv(folder / "metrics.csv"), term, f"{label}, nats per image", self.title)
        if trainer.is_global_zero and drawn is not None:
            (folder / "images").mkdir(exist_ok=True)
            charts.save(drawn, folder / "images" / f"{term}.png", "training")


class Speed(Callback):
    """`train/images_per_second` of each epoch, its training alone; validation is left out."""

    counts_steps = True

    def __init__(self) -> None:
        self._seconds, self._batches = 0.0, 0
        self._start, self._first = 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._start, self._first = time.perf_counter(), trainer.fit_loop.batch_idx

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # the steps of this call have been launched, not made
        self._seconds += time.perf_counter() - self._start
        self._batches += trainer.fit_loop.batch_idx - self._first + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._batches:  # none, where a run was interrupted in its validation and is resumed
            images = self._batches * trainer.datamodule.batch_size  # type: ignore[attr-defined]
            pl_module.log("train/images_per_second", images / self._seconds)
        self._seconds, self._batches = 0.0, 0


class Progress(TQDMProgressBar):
    """Lightning's bar without the number of the logger's version; where there is no terminal, a line an epoch."""

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
