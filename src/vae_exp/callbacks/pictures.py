"""Pictures, curves and the explorer of a training."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger

from vae_exp import charts
from vae_exp.callbacks.beside import beside
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.page.explore import explore
from vae_exp.page.pictures import undrawn
from vae_exp.records import read_rows
from vae_exp.runs.folder import load_config
from vae_exp.runs.trained import Trained, of_training
from vae_exp.what.make import make

__all__ = ["Curves", "Explorer", "Pictures"]

log = logging.getLogger("vae_exp")


class Pictures(Callback):
    """Pictures of `vae_exp.what` in the run's `images/`: samples, reconstructions and, for a CVAE, classes.

    They are drawn every few epochs and, with the weights that were tested, at the end; always from validation images.
    At the end, the other pictures of the page of the run are drawn, too.

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
        cfg = load_config(trainer.default_root_dir)
        more = (
            undrawn(Path(trainer.default_root_dir), cfg) if cfg.get("report") else []
        )  # so that loggers have them, too
        self._draw(trainer, "as tested", "best" if has_best else "last", more)

    def _draw(self, trainer: pl.Trainer, when: str, checkpoint: str = "", more: Sequence[str] = ()) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or "val" not in trainer.datamodule.splits:  # type: ignore[attr-defined]
            return
        # Every drawing uses the same latents, to show what training changes.
        with beside(trainer, f"{self.title}, {when}", checkpoint) as trained, torch.no_grad():
            wanted = dict.fromkeys(("reconstructions", "samples", "classes", *more))
            made = [what for what in wanted if self._make(trained, what, when)]
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
        unit = trainer.datamodule.representation.unit  # type: ignore[attr-defined]
        drawn = charts.curves(read_rows(folder / "metrics.csv"), term, f"{label}, nats per {unit}", self.title)
        if trainer.is_global_zero and drawn is not None:
            charts.save(drawn, folder / "images" / f"{term}.png", "training")


class Explorer(Callback):
    """`explore.html` at the end, of validation images and the weights that were tested, see `vae_exp.page.explore`.

    Arguments:
        title: The title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        trained = of_training(trainer, self.title)
        try:
            log.info("%-15s %s", "explore", explore(trained))
        except ConfigError as error:
            log.warning("no explore.html: %s", error)
