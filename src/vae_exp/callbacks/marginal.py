"""The marginal likelihood during training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from vae_exp.callbacks.beside import beside
from vae_exp.estimators.annealing import Bridge
from vae_exp.estimators.importance import CHUNK, importance_sampling, widest
from vae_exp.estimators.reciprocal import reciprocal_sampling
from vae_exp.runs.trained import Trained

__all__ = ["Marginal"]

SPLITS = ("train", "val", "test")


class Marginal(Callback):
    """Logs the ELBO and `-log p(x)` of some images of chosen splits every so many steps, as in the figures of papers.

    Both are means over the same images, nats per image: `marginal/SPLIT/nll` by importance sampling (Burda et al.,
    2016) or from posterior samples, `marginal/SPLIT/elbo` the mean log weight of importance sampling. Images, their
    bits and the noise of the latents are the same each time and in every run with this seed, and training does not
    notice.

    Arguments:
        every: Training steps from one row to the next; None for no rows.
        splits: Of train, val, test.
        num_images: Images of each split, drawn by `seed`; None for all.
        num_samples: K, latents for each image, or chains.
        estimator: Of log p(x): `importance`, or `hmc`, see `reciprocal_sampling`.
        seed: Draws images and latents.

    Raises:
        ValueError: If a number is below 1, or there is no such split.
    """

    counts_steps = True

    def __init__(
        self,
        every: int | None = None,
        splits: Sequence[str] = ("train", "val"),
        num_images: int | None = 1000,
        num_samples: int = 100,
        estimator: str = "importance",
        seed: int = 0,
    ) -> None:
        for name, value in (("every", every), ("num_images", num_images), ("num_samples", num_samples)):
            if value is not None and value < 1:
                raise ValueError(f"callbacks.marginal.{name}={value}: at least 1 is needed")
        if not splits or not set(splits) <= set(SPLITS):
            raise ValueError(f"callbacks.marginal.splits={list(splits)}: choose of {', '.join(SPLITS)}")
        if estimator not in ("importance", "hmc"):
            raise ValueError(f"callbacks.marginal.estimator={estimator}: choose importance or hmc")
        self.every_n_steps, self.estimator = every, estimator
        self.splits, self.num_images, self.num_samples, self.seed = splits, num_images, num_samples, seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_steps is not None:
            needed = "slope" if self.estimator == "hmc" else "density"
            pl_module.require(needed, "callbacks.marginal.every=null")  # type: ignore[operator]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        every = self.every_n_steps
        if every is not None and trainer.global_step % every == 0 and pl_module.has_stepped and trainer.is_global_zero:
            self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        with beside(trainer) as present, torch.no_grad():
            trained = replace(present, seed=self.seed)
            means = {name: mean for split in self.splits for name, mean in self._means(trained, split).items()}
        for logger in trainer.loggers:
            logger.log_metrics(means | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1)
            logger.save()

    def _means(self, trained: Trained, split: str) -> dict[str, float]:
        elbos, log_pxs = [], []
        for x, y in trained.batches(split, self.num_images):
            draw = trained.model.draw(x, y)
            marginal = importance_sampling(draw, self.num_samples)
            elbos.append(marginal.curve[1])
            if self.estimator == "hmc":
                together = max(1, CHUNK // (self.num_samples * widest(draw)))
                for some_x, some_y in zip(x.split(together), y.split(together), strict=True):
                    draw = trained.model.draw(some_x, some_y)
                    bridge = Bridge(draw.log_prior, draw.log_likelihood)
                    log_pxs.append(reciprocal_sampling(bridge, draw.sample_prior(self.num_samples))[0].log_px)
            else:
                log_pxs.append(marginal.log_px)
        elbo, log_px = (float(torch.cat(each).mean()) for each in (elbos, log_pxs))
        return {f"marginal/{split}/elbo": elbo, f"marginal/{split}/nll": -log_px}
