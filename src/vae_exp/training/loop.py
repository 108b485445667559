"""The training loop: Lightning's, but with several steps each time that Lightning asks for one.

For a small VAE, Lightning's hooks, logs and progress bar take about as long as a step. Here they run after every
fiftieth step, or earlier if there is something to do: to log, to validate, to save, to stop. Lightning's own counters
are updated as if Lightning had made each step itself, so no other code needs to know of this loop.
"""

import inspect
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from vae_exp.models.module import Module
from vae_exp.training.graph import Graph, is_capturable
from vae_exp.training.signals import Signals

__all__ = ["Steps"]

log = logging.getLogger("vae_exp")

AROUND_STEP = ("on_train_batch_start", "on_train_batch_end")
LONGEST = 5.0  # seconds of a call: then signals and the clock of checkpoints have their turn
WITHIN_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
OF_MODEL = (*WITHIN_STEP, "backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")
OF_BATCH = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Steps(_AutomaticOptimization):
    """Makes the step on the batch that Lightning fetched and the steps on the next batches, up to the next event.

    If a callback overrides `on_train_batch_start` or `on_train_batch_end`, each call makes one step, so that the
    callback is called for every batch. A callback with `counts_steps = True` does not need this: it reads Lightning's
    counters instead of counting calls.

    Arguments:
        trainer: The trainer that runs this loop.
        max_steps: Largest number of steps in one call.
        cuda_graphs: Whether to make a CUDA graph of the step, if that is possible.
    """

    def __init__(self, trainer: pl.Trainer, max_steps: int = 50, cuda_graphs: bool = True) -> None:
        super().__init__(trainer)
        self.max_steps = max_steps
        self.cuda_graphs = cuda_graphs
        self._graph: Graph | None = None

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Returns the output of the last step."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        model = trainer.lightning_module
        assert isinstance(model, Module)
        fetcher, signals = trainer.fit_loop._data_fetcher, trainer._signal_connector
        assert fetcher is not None and isinstance(signals, Signals)  # noqa: PT018
        special = self._special(optimizer)
        step = self._step if special is None else super().run
        if self.cuda_graphs and trainer.strategy.root_device.type == "cuda":
            self._prepare_graph(optimizer, special)
        transfers = any(
            is_overridden(hook, part)
            for part in (trainer.lightning_module, trainer.datamodule)  # type: ignore[attr-defined]
            for hook in OF_BATCH
        )
        last = batch_idx + self._batches_to_event() - 1
        until = time.monotonic() + LONGEST
        while True:
            loop._batches_that_stepped = trainer.global_step
            model.step.fill_(trainer.global_step)
            outputs = step(optimizer, batch_idx, kwargs)
            # Several processes make the same steps in a call, and agree before the next one whether a signal came.
            if batch_idx == last or (trainer.world_size == 1 and (signals.came or time.monotonic() > until)):
                return outputs
            # The same as Lightning does between two steps.
            loop.batch_progress.increment_processed()
            if trainer.lr_scheduler_configs:
                loop.update_lr_schedulers("step", update_plateau_schedulers=False)
                loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            loop.batch_progress.increment_completed()
            batch = trainer.precision_plugin.convert_input(next(fetcher)[0])
            if transfers or not _is_on(trainer.strategy.root_device, batch):
                batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
                batch = trainer.strategy.batch_to_device(batch)
            kwargs["batch"] = batch
            batch_idx += 1
            if "batch_idx" in kwargs:
                kwargs["batch_idx"] = batch_idx
            loop.batch_progress.is_last_batch = fetcher.done
            loop.batch_progress.increment_ready()
            if special is not None:  # hooks may log
                trainer._logger_connector.on_batch_start(batch)
            loop.batch_progress.increment_started()

    def _step(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Lightning's step without its hooks."""
        self.optim_progress.optimizer.step.increment_ready()
        loss = (self._graph or partial(self._update, optimizer))(kwargs["batch"], batch_idx)
        self.optim_progress.optimizer.step.increment_completed()
        return {"loss": loss.detach()}

    def _update(self, optimizer: Optimizer, batch: Any, batch_idx: int) -> Tensor:
        trainer, model = self.trainer, self.trainer.lightning_module
        model._current_fx_name = "training_step"  # an objective may log
        loss = trainer.strategy.training_step(batch, batch_idx)
        model._current_fx_name = None
        assert isinstance(loss, Tensor)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()
        if trainer.gradient_clip_val:
            model.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        return loss

    def _special(self, optimizer: Optimizer) -> str | None:
        """What makes Lightning's own step necessary; None if nothing does."""
        trainer, model = self.trainer, self.trainer.lightning_module
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        needs = {
            "the strategy": type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy)
            or getattr(trainer.strategy, "_model_averager", None) is not None,
            "the profiler": not isinstance(trainer.profiler, PassThroughProfiler),  # type: ignore[attr-defined]
            "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
            "precision=16-mixed": getattr(trainer.precision_plugin, "scaler", None) is not None,
            "the optimizer's closure": _needs_closure(optimizer),
            "a callback": any(is_overridden(hook, callback) for callback in callbacks for hook in WITHIN_STEP),
            "the model": any(is_overridden(hook, model) for hook in OF_MODEL)
            or getattr(type(model), "training_step", None) is not Module.training_step,
        }
        return next((name for name, needed in needs.items() if needed), None)

    def _prepare_graph(self, optimizer: Optimizer, special: str | None) -> None:
        if not isinstance(self.trainer.strategy, SingleDeviceStrategy):
            special = "several processes"
        elif self.trainer.lr_scheduler_configs and not all(
            isinstance(group["lr"], Tensor) for group in optimizer.param_groups
        ):
            special = "the learning rate's schedule"
        elif not is_capturable(optimizer):
            special = "the optimizer, which keeps its state on the CPU: choose fused or capturable"
        if special is not None:
            log.info("cuda_graphs: the steps run eagerly, because of %s", special)
            self.cuda_graphs, self._graph = False, None
            return
        model = self.trainer.lightning_module
        assert isinstance(model, Module)
        if self._graph is None or self._graph.is_outdated():
            self._graph = Graph(partial(self._update, optimizer), model, optimizer)

    def _batches_to_event(self) -> int:
        """The number of batches, including this one, up to the next one after which Lightning has something to do."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        model = type(trainer.lightning_module)
        of_model = (model.on_train_batch_start, model.on_train_batch_end)
        if of_model != (Module.on_train_batch_start, Module.on_train_batch_end):
            return 1
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if any(is_overridden(hook, callback) for hook in AROUND_STEP) and not getattr(
                callback, "counts_steps", False
            ):
                return 1
        batches = [self.max_steps, trainer.num_training_batches - loop.batch_idx]
        if loop._should_check_val_epoch() and isinstance(trainer.val_check_batch, int):
            done = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
            batches.append(trainer.val_check_batch - done % trainer.val_check_batch)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        every = [getattr(each, name, None) for each in callbacks for name in ("_every_n_train_steps", "every_n_steps")]
        intervals = [n for n in (trainer.log_every_n_steps, *every) if n]  # type: ignore[attr-defined]
        steps = [n - trainer.global_step % n for n in intervals]
        chosen = [step for each in callbacks for step in getattr(each, "at_steps", ())]
        steps += [step - trainer.global_step for step in chosen if step > trainer.global_step]
        if trainer.max_steps != -1:
            steps.append(trainer.max_steps - trainer.global_step)
        if trainer.should_stop and loop.min_steps and loop.min_steps > trainer.global_step:
            steps.append(loop.min_steps - trainer.global_step)
        accumulate = trainer.accumulate_grad_batches
        batches.append(min(steps) * accumulate - loop.batch_idx % accumulate)
        return int(max(1, min(batches)))


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is not None


def _is_on(device: torch.device, batch: Any) -> bool:
    return isinstance(batch, tuple | list) and all(isinstance(x, Tensor) and x.device == device for x in batch)
