"""The marginal likelihood during training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from vae_exp.estimators.importance import importance_sampling
from vae_exp.runs.trained import Trained, of_training

__all__ = ["Marginal"]

SPLITS = ("train", "val", "test")


class Marginal(Callback):
    """Logs the ELBO and `-log p(x)` of some images of chosen splits every so many steps, as in the figures of papers.

    Both are means over the same images and latents, nats per image: `marginal/SPLIT/nll` by importance sampling
    (Burda et al., 2016), `marginal/SPLIT/elbo` the mean log weight. Images, their bits and the latents' noise are the
    same each time and in every run with this seed, and the noise of training is not affected.

    Arguments:
        every: Training steps from one row to the next; None for no rows.
        splits: Of train, val, test.
        num_images: Images of each split, drawn by `seed`; None for all.
        num_samples: K, latents for each image.
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
        seed: int = 0,
    ) -> None:
        for name, value in (("every", every), ("num_images", num_images), ("num_samples", num_samples)):
            if value is not None and value < 1:
                raise ValueError(f"callbacks.marginal.{name}={value}: at least 1 is needed")
        if not splits or not set(splits) <= set(SPLITS):
            raise ValueError(f"callbacks.marginal.splits={list(splits)}: choose of {', '.join(SPLITS)}")
        self.every_n_steps = every
        self.splits, self.num_images, self.num_samples, self.seed = splits, num_images, num_samples, seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_steps is not None:
            pl_module.require("density", "callbacks.marginal.every=null")  # type: ignore[operator]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        every = self.every_n_steps
        if every is not None and trainer.global_step % every == 0 and pl_module.has_stepped and trainer.is_global_zero:
            self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        trained = replace(of_training(trainer, ""), seed=self.seed)
        model = trained.model
        was_training, device = model.training, model.device
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            means = {name: mean for split in self.splits for name, mean in self._means(trained, split).items()}
        model.train(was_training)
        for logger in trainer.loggers:
            logger.log_metrics(means | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1)
            logger.save()

    def _means(self, trained: Trained, split: str) -> dict[str, float]:
        parts = [
            importance_sampling(trained.model.draw(x, y), self.num_samples)
            for x, y in trained.batches(split, self.num_images)
        ]
        log_px, elbo = (torch.cat(each) for each in zip(*((part.log_px, part.curve[1]) for part in parts), strict=True))
        return {f"marginal/{split}/elbo": float(elbo.mean()), f"marginal/{split}/nll": -float(log_px.mean())}
