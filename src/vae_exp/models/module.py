"""What every model shares with Lightning: the steps, the optimizer, the logs, what a checkpoint keeps."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vae_exp.conditions import Attributes, Classes
from vae_exp.config import ConfigError
from vae_exp.draws import Draw, Stop
from vae_exp.ledger import Ledger
from vae_exp.objectives import Objective
from vae_exp.parts import Likelihood, Part, Prior
from vae_exp.schedules import check

__all__ = ["Module", "is_on_device", "make_optimizer"]


class Module(pl.LightningModule):
    """A model as Lightning trains it. A subclass has the parts and `draw`, which scores images.

    Attributes:
        condition: What y is, see `vae_exp.conditions`.
        prior: What an objective may ask whether it is made of posteriors.
        likelihood: The part that may be fitted before each validation.
        objective: `(model, x, y, step) -> loss, draw`, see `vae_exp.objectives`.
        optimizer: Makes the optimizer from the parameters.
        step: The number of steps so far, `()`, on the device: schedules and a captured step read it there.
        is_new: Whether no weights were loaded, so that parts may start from the data.
        started: Parts whose weights were loaded.
        frozen: Parts whose weights do not change.
        ledgers: The means of each stage: train, val and test.
    """

    condition: Classes | Attributes
    prior: Prior
    likelihood: Likelihood
    objective: Objective
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.is_new = True
        self.started: list[nn.Module] = []
        self.frozen: list[nn.Module] = []
        self.ledgers = {stage: Ledger(stage) for stage in ("train", "val", "test")}

    def part(self, key: str, name: str) -> nn.Module:
        """The part `name`.

        Raises:
            ConfigError: If there is none, or it has no weights; the message names `key`.
        """
        known = {one: module for one, module in self.named_children() if any(True for _ in module.parameters())}
        if name not in known:
            raise ConfigError(f"{key}={name}: the parts of this model that have weights are {', '.join(known)}")
        return known[name]

    def hold(self, names: Sequence[str]) -> None:
        """Keeps the weights of these parts as they are, and the running means of their batch normalisation.

        Raises:
            ConfigError: If there is no such part, or nothing is left to train.
        """
        self.frozen = [self.part("freeze", name).requires_grad_(False) for name in names]
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ConfigError(f"freeze=[{','.join(names)}]: nothing is left to train")
        self.train(self.training)
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")

    def train(self, mode: bool = True) -> "Module":
        """Turns training on or off; in frozen parts batch normalisation stays as in evaluation."""
        super().train(mode)
        for part in self.frozen:
            for layer in part.modules():
                if getattr(layer, "track_running_stats", False):
                    layer.eval()
        return self

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, which may start from the training images."""
        raise NotImplementedError

    def draw(
        self, x: Tensor, y: Tensor | None = None, num_samples: int = 1, z: Tensor | None = None, stop: Stop = ()
    ) -> Draw:
        """Draws latents for images and scores them."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        """Gives every parameter to one optimizer; where its `lr` is a schedule, with a scheduler that follows it."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer, scheduler = make_optimizer(self.optimizer, trained, self.device)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Lets parts start from the training images and their attributes, unless weights were loaded.

        Raises:
            ConfigError: If a part cannot start from these images; if the likelihood is fitted before each validation,
                and there is none.
        """

        def images() -> Iterator[tuple[Tensor, Tensor]]:  # fetched by a part that reads them, and by no other
            yield from self.trainer.datamodule.training_images(whole=True)  # type: ignore[attr-defined]

        if self.is_new:
            self.condition.fit(self.trainer.datamodule.splits["train"].y)  # type: ignore[attr-defined]
        for part in self.parts if self.is_new else ():
            if any(part is other for other in self.started):
                continue
            try:
                part.start_from(images())
            except ValueError as error:
                raise ConfigError(str(error)) from error
        self.is_new = False
        if self.likelihood.fit is not None and not self.trainer.enable_validation:
            raise ConfigError(
                f"likelihood: {type(self.likelihood).__name__} is fitted to the training set before each validation, "
                "and there is none: set trainer.limit_val_batches=null"
            )

    def on_train_start(self) -> None:
        """Moves a scheduled rate to the device: from a checkpoint it comes to the CPU, and a graph would keep it."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                if isinstance(group.get("lr"), Tensor):
                    group["lr"] = group["lr"].to(self.device)

    def on_validation_start(self) -> None:
        """Fits a likelihood that follows the training set, such as `sigma_vae`, to it."""
        fit = self.likelihood.fit
        if fit is not None and self.trainer.state.fn == "fit":
            batches = self.trainer.datamodule.training_images()  # type: ignore[attr-defined]
            pairs = ((self.draw(x, y).px, x) for x, y in batches)
            fit(pairs, lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        else:
            self.check_fitted()

    def on_test_start(self) -> None:
        """Refuses to test with a likelihood that was not fitted."""
        self.check_fitted()

    def check_fitted(self) -> None:
        """Refuses to score with a likelihood that must be fitted first and was not.

        Raises:
            ConfigError: If there was no validation, before which it is fitted.
        """
        if not self.likelihood.is_fitted:
            raise ConfigError(
                f"likelihood: {type(self.likelihood).__name__} is fitted to the training set before each validation, "
                "and there was none: train up to the first one, with more trainer.max_steps or epochs"
            )

    def on_train_batch_start(self, *_: Any) -> None:
        """Sets the step that schedules read; `training.loop` sets it for the further steps of a call."""
        self.step.fill_(self.global_step)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """One step of the objective."""
        x, y, *rows = batch
        loss, draw = self.objective(self, x, y, self.step, *rows)
        self.note("train", draw.terms, loss, batch_idx)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("test", batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        """Logs the means since the last time, every `trainer.log_every_n_steps`; called after one step or several."""
        self.ledgers["train"].add_up()
        if self._is_row_due():
            self._log_train()

    def note(self, stage: str, terms: dict[str, Tensor], loss: Tensor, batch_idx: int) -> None:
        """Enters a batch into the ledger of its stage: terms `(B,)` and the loss."""
        where = f"step {self.global_step} (epoch {self.current_epoch}, batch {batch_idx})"
        self.ledgers[stage].note(terms, loss, where)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation images."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test images."""
        self._log("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums since the last row of `train/`: a resumed run continues them."""
        ledger = self.ledgers["train"]
        ledger.add_up()
        # Saved at the end of a batch, a checkpoint comes just before its row.
        if not self._is_row_due():
            checkpoint["train_sums"] = ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the sums."""
        self.is_new = False
        if "train_sums" in checkpoint:
            self.ledgers["train"].load_state_dict(checkpoint["train_sums"], self.device)

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        loss, draw = self.objective(self, *batch, self.step)
        self.note(stage, draw.terms, loss, batch_idx)
        return {"loss": loss, "draw": draw}

    def _log(self, stage: str) -> None:
        for name, mean in self._means(stage).items():
            # The mean is already over all processes; sync_dist only spares Lightning's reminder to do so.
            self.log(name, mean, on_epoch=True, prog_bar=name.endswith("elbo"), sync_dist=True)

    @property
    def has_stepped(self) -> bool:
        """At the end of a batch, whether the optimizer made a step, or whether gradients are accumulated still."""
        return not self.trainer.fit_loop._should_accumulate()

    def _is_row_due(self) -> bool:
        is_multiple = self.trainer.global_step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        return is_multiple and self.has_stepped

    def _log_train(self) -> None:
        # What `self.log` does, without its machinery, which takes about as long as a step of a small model.
        means = self._means("train")
        self.trainer.callback_metrics.update({name: torch.tensor(mean) for name, mean in means.items()})
        shown = "train/elbo" if "train/elbo" in means else "train/loss"
        self.trainer.progress_bar_metrics[shown] = means[shown]
        for logger in self.loggers:
            logger.log_metrics(means | {"epoch": self.current_epoch}, step=self.global_step - 1)
            logger.save()

    def _means(self, stage: str) -> dict[str, float]:
        self.ledgers[stage].add_up()
        means = self.ledgers[stage].compute(lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        return {f"{stage}/{name}": mean for name, mean in means.items()}


def make_optimizer(
    make: Callable[..., Optimizer], parameters: Iterable[nn.Parameter], device: torch.device
) -> tuple[Optimizer, LambdaLR | None]:
    """An optimizer, and a scheduler for each step if its `lr` is a schedule.

    Arguments:
        make: Makes the optimizer from the parameters; a schedule is the keyword `lr` of a `functools.partial`.
        parameters: What it changes.
        device: Where they are.

    Raises:
        ValueError: If a rate of the schedule is negative.
    """
    lr = make.keywords.get("lr") if isinstance(make, partial) else None
    if not callable(lr):
        return make(parameters), None
    check("optimizer.lr", lr)
    optimizer = make(parameters, lr=1.0)  # which the scheduler multiplies by the schedule
    if device.type == "cuda" and is_on_device(optimizer):
        for group in optimizer.param_groups:  # a captured step reads a tensor and would keep a number
            group["lr"] = torch.ones((), device=device)
    return optimizer, LambdaLR(optimizer, lambda step: float(lr(step)))


def is_on_device(optimizer: Optimizer) -> bool:
    """Whether all that the optimizer changes is on the device; others count their steps in Python."""
    return all(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
