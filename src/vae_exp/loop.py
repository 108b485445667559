"""The training loop: Lightning's, with several steps to each of its batches.

For a small VAE, Lightning's hooks, logs and progress bar take about as long as a step. Here they follow every
fiftieth step, or the step that they have something to do after: to log, to validate, to save, to stop. Lightning's
own counters are kept as if it had made each step by itself, so that nothing else need know.
"""

import inspect
import logging
from collections import OrderedDict
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from vae_exp.graph import Graph
from vae_exp.models import VAE

__all__ = ["Steps"]

log = logging.getLogger("vae_exp")

AROUND_STEP = ("on_train_batch_start", "on_train_batch_end")
WITHIN_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
OF_MODEL = (*WITHIN_STEP, "backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")
OF_BATCH = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Steps(_AutomaticOptimization):
    """Steps on the batch that Lightning fetched and on those that follow, up to the next event.

    A callback that overrides `on_train_batch_start` or `on_train_batch_end` hears of every batch, and then each
    call is one step, unless it says `counts_steps = True`: it reads Lightning's counters instead of counting calls.

    Arguments:
        trainer: Whose loop this is.
        max_steps: Most steps at a time.
        cuda_graphs: Whether to make a CUDA graph of the step, where that is possible.
    """

    def __init__(self, trainer: pl.Trainer, max_steps: int = 50, cuda_graphs: bool = True) -> None:
        super().__init__(trainer)
        self.max_steps = max_steps
        self.cuda_graphs = cuda_graphs
        self._graph: Graph | None = None

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Returns the output of the last step."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        special = self._special(optimizer)
        step = self._step if special is None else super().run
        if self.cuda_graphs and trainer.strategy.root_device.type == "cuda":
            self._prepare_graph(optimizer, special)
        is_ready = self._is_ready(kwargs["batch"])
        last = batch_idx + self._batches_to_event() - 1
        while True:
            loop._batches_that_stepped = trainer.global_step
            outputs = step(optimizer, batch_idx, kwargs)
            # Several processes agree on a signal between two calls.
            if batch_idx == last or (trainer.received_sigterm and trainer.world_size == 1):
                return outputs
            # What Lightning does from one step to the next.
            loop.batch_progress.increment_processed()
            if trainer.lr_scheduler_configs:
                loop.update_lr_schedulers("step", update_plateau_schedulers=False)
                loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            loop.batch_progress.increment_completed()
            batch = trainer.precision_plugin.convert_input(next(fetcher)[0])
            batch_idx += 1
            loop.batch_progress.is_last_batch = fetcher.done
            loop.batch_progress.increment_ready()
            loop.batch_progress.increment_started()
            kwargs["batch"] = batch if is_ready else trainer.strategy.batch_to_device(batch)
            if "batch_idx" in kwargs:
                kwargs["batch_idx"] = batch_idx

    def _step(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Lightning's step without its hooks."""
        self.optim_progress.optimizer.step.increment_ready()
        loss = (self._graph or partial(self._update, optimizer))(kwargs["batch"], batch_idx)
        self.optim_progress.optimizer.step.increment_completed()
        return {"loss": loss.detach()}

    def _update(self, optimizer: Optimizer, batch: Any, batch_idx: int) -> Tensor:
        trainer = self.trainer
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss = trainer.strategy.training_step(batch, batch_idx)
        assert isinstance(loss, Tensor)
        loss.backward()
        if trainer.gradient_clip_val:
            trainer.lightning_module.clip_gradients(
                optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
            )
        optimizer.step()
        return loss

    def _special(self, optimizer: Optimizer) -> str | None:
        """What needs Lightning's own step; None if nothing does."""
        trainer, model = self.trainer, self.trainer.lightning_module
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        needs = {
            "the strategy": not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy),
            "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
            "precision=16-mixed": getattr(trainer.precision_plugin, "scaler", None) is not None,
            "the optimizer's closure": inspect.signature(optimizer.step).parameters["closure"].default is not None,
            "a callback": any(is_overridden(hook, callback) for callback in callbacks for hook in WITHIN_STEP),
            "the model": any(is_overridden(hook, model) for hook in OF_MODEL)
            or getattr(type(model), "training_step", None) is not VAE.training_step,
        }
        return next((name for name, needed in needs.items() if needed), None)

    def _prepare_graph(self, optimizer: Optimizer, special: str | None) -> None:
        if not isinstance(self.trainer.strategy, SingleDeviceStrategy):
            special = "several processes"
        elif self.trainer.lr_scheduler_configs:
            special = "the learning rate's schedule"
        if special is not None:
            log.info("cuda_graphs: the steps run eagerly, because of %s", special)
            self.cuda_graphs = False
        elif self._graph is None:
            assert isinstance(self.trainer.lightning_module, VAE)
            self._graph = Graph(partial(self._update, optimizer), self.trainer.lightning_module, optimizer)

    def _is_ready(self, batch: Any) -> bool:
        """Whether the loader gives batches as the step wants them."""
        data, device = self.trainer.datamodule, self.trainer.strategy.root_device  # type: ignore[attr-defined]
        return (
            isinstance(batch, tuple | list)
            and all(isinstance(x, Tensor) and x.device == device for x in batch)
            and not any(
                is_overridden(hook, part) for part in (self.trainer.lightning_module, data) for hook in OF_BATCH
            )
        )

    def _batches_to_event(self) -> int:
        """The batches up to the first after which Lightning has something to do, the current one included."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if any(is_overridden(hook, callback) for hook in AROUND_STEP) and not getattr(
                callback, "counts_steps", False
            ):
                return 1
        batches = [self.max_steps, trainer.num_training_batches - loop.batch_idx]
        if loop._should_check_val_epoch() and isinstance(trainer.val_check_batch, int):
            done = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
            batches.append(trainer.val_check_batch - done % trainer.val_check_batch)
        saves = [getattr(callback, "_every_n_train_steps", 0) for callback in trainer.checkpoint_callbacks]
        intervals = [n for n in (trainer.log_every_n_steps, *saves) if n]  # type: ignore[attr-defined]
        steps = [n - trainer.global_step % n for n in intervals]
        if trainer.max_steps != -1:
            steps.append(trainer.max_steps - trainer.global_step)
        accumulate = trainer.accumulate_grad_batches
        batches.append(min(steps) * accumulate - loop.batch_idx % accumulate)
        return int(max(1, min(batches)))
