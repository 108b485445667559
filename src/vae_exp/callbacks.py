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

from vae_exp import plots
from vae_exp.data.representation import floats
from vae_exp.draws import Draw
from vae_exp.ledger import Mean, NonFiniteError
from vae_exp.models import CVAE, VAE

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
    """`images/samples.png`, `images/reconstructions.png` and, for a CVAE, `images/classes.png`.

    Drawn every few epochs and, with the weights that were tested, at the end; always from validation images.

    Arguments:
        title: Stands above each picture.
        every_n_epochs: Validations between two drawings.
    """

    def __init__(self, title: str, every_n_epochs: int = 5) -> None:
        self.title = title
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.current_epoch % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, f"epoch {trainer.current_epoch + 1}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module, f"epoch {trainer.current_epoch}")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module, "as tested")

    def _draw(self, trainer: pl.Trainer, model: pl.LightningModule, weights: str) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        assert isinstance(model, VAE)
        split = trainer.datamodule.splits.get("val")  # type: ignore[attr-defined]
        if split is None:
            return
        folder = Path(trainer.default_root_dir) / "images"
        folder.mkdir(exist_ok=True)
        x = floats(split.pixels(slice(10))).to(model.device)

        def shown(images: Tensor) -> Tensor:
            return trainer.datamodule.shown(images, "val")  # type: ignore[attr-defined]

        y = split.y[:10].to(model.device)
        num_classes = model.context_dim if isinstance(model, CVAE) else None
        when = f"{self.title}, {weights}"
        px = "p(x|z)" if num_classes is None else "p(x|z,y)"
        was_training = model.training
        model.eval()
        # The same latents at every drawing show what training changes, and leave its own noise alone.
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(0)
            title = f"{when}\nvalidation images and their reconstructions"
            paths = [
                plots.reconstructions(shown(x), shown(model.reconstruct(x, y)), title, folder / "reconstructions.png")
            ]
            if model.bounds is not None:  # an autoencoder has nothing to sample from
                labels = None if num_classes is None else torch.arange(100, device=model.device) % num_classes
                title = f"{when}\nsamples: means of {px}, z from the prior"
                paths.append(plots.grid(shown(model.sample(100, labels)), title, folder / "samples.png"))
            if num_classes is not None:
                labels = torch.arange(num_classes, device=model.device).repeat_interleave(10)
                images = shown(model.sample(len(labels), labels))
                title = f"{when}\nsamples of each class: means of p(x|z,y)"
                paths.append(
                    plots.grid(images, title, folder / "classes.png", rows=[f"y = {k}" for k in range(num_classes)])
                )
        model.train(was_training)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for path in paths:
                    logger.log_image(f"images/{path.stem}", [str(path)])


class Curves(Callback):
    """`images/elbo.png`: the ELBO over the steps, from `metrics.csv`; for an autoencoder `recon.png`."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero and (folder / "metrics.csv").exists():
            (folder / "images").mkdir(exist_ok=True)
            assert isinstance(pl_module, VAE)
            plots.curve(folder / "metrics.csv", self.title, pl_module.bounds, folder / "images")


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
