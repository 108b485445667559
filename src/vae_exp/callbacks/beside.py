"""What runs beside training without being noticed by it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch

from vae_exp.runs.trained import Trained, of_training

__all__ = ["beside"]


@contextmanager
def beside(trainer: pl.Trainer, title: str = "", checkpoint: str = "") -> Iterator[Trained]:
    """The present run in evaluation mode; training then finds its mode and its noise as it left them.

    Tensors that are made here are none of inference mode, in which Lightning validates: they may have gradients.

    Arguments:
        trainer: The trainer, during training or after it.
        title: See `of_training`.
        checkpoint: See `of_training`.
    """
    device = trainer.strategy.root_device
    with torch.inference_mode(False), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trained = of_training(trainer, title, checkpoint)
        was_training = trained.model.training
        trained.model.eval()
        try:
            yield trained
        finally:
            trained.model.train(was_training)
