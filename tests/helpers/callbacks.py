"""Callbacks that several tests name by `_target_`."""

import os
import signal
from pathlib import Path
from typing import ClassVar

import pytorch_lightning as pl
import torch


class Ruin(pl.Callback):
    """Spoils the weights in the second epoch."""

    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.mul_(3)


class Within(pl.Callback):
    """Looks at each gradient."""

    norms: ClassVar[list[float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.norms.append(float(sum(p.grad.square().sum() for p in pl_module.parameters())))


class Seeds(pl.Callback):
    """Writes down the seed of each step, a file a process."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        with (Path(trainer.default_root_dir) / f"seeds{trainer.global_rank}.txt").open("a") as file:
            file.write(f"{torch.initial_seed()}\n")


class Terminate(pl.Callback):
    """As a scheduler ends a job: SIGTERM in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


class Interrupt(pl.Callback):
    """As a user ends a run: Ctrl-C in the fifth step, when the optimizer has changed the weights."""

    def on_train_start(self, trainer, pl_module):
        self.steps = 0
        trainer.optimizers[0].register_step_post_hook(self._count)

    def _count(self, *_):
        self.steps += 1
        if self.steps == 5:
            os.kill(os.getpid(), signal.SIGINT)
