"""Signals: Ctrl-C and SIGTERM end training between two steps, where weights, counters and data agree."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.utilities.exceptions import SIGTERMException

__all__ = ["Signals", "Stop"]


class Signals(_SignalConnector):
    """What came, in place of Lightning's connector, which acts between any two batches and within a collective.

    Attributes:
        came: The number of the first signal, 0 for none.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(trainer)
        self.came = 0

    def _sigterm_notifier_fn(self, signum: int, _: FrameType | None) -> None:
        """Nothing: `note` is called beside it."""

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Keeps a signal for the end of the step.

        Raises:
            KeyboardInterrupt: At the second Ctrl-C, or one after SIGTERM: it stops at once, and nothing is saved.
        """
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = self.came or number

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, signals wait for the end of the step."""
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        before = {number: signal.signal(number, self.note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self._raise()  # came in the last moment

    @contextmanager
    def named(self) -> Iterator[None]:
        """Gives what ended the work its name.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM, with 143, as a shell reports it; Lightning alone would exit with 0.
        """
        try:
            yield
        except SIGTERMException as error:
            self._raise(error)
            raise
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits with 1
                raise KeyboardInterrupt from error
            raise
        self._raise()

    def _raise(self, cause: BaseException | None = None) -> None:
        if self.came == signal.SIGINT:
            raise KeyboardInterrupt from cause
        if self.came:
            raise SystemExit(128 + self.came) from cause or SIGTERMException()


class Stop(Callback):
    """Ends the work at the first signal: before the next step, the next batch of a validation or of the test.

    A validation that is cut off is repeated from its beginning when the run is resumed.
    """

    counts_steps = True
    _validates = False

    def on_fit_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Before the first step."""
        self._check(trainer)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Takes batches that were begun, but not ended, out of the totals of a resumed run."""
        loop = trainer.fit_loop.epoch_loop
        for progress in (loop.batch_progress, loop.val_loop.batch_progress):
            total: Any = progress.total
            total.ready = total.started = total.processed

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Before a step; gradients that are accumulated belong to it."""
        if not _is_within_step(trainer):
            self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Notes that a validation of training has begun."""
        self._validates = trainer.state.fn == "fit"

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Before a batch."""
        self._check(trainer)

    def on_validation_end(self, *_: Any) -> None:
        """Notes that it has ended."""
        self._validates = False

    def on_test_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Before a batch."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Makes a validation begin again that is cut off."""
        if self._validates:
            # As if its first batch had been begun: Lightning repeats that batch, and goes on with the others.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False
            checkpoint["repeats_validation"] = True

    def _check(self, trainer: pl.Trainer) -> None:
        signals = trainer._signal_connector
        assert isinstance(signals, Signals)
        if trainer.world_size > 1:  # they stop together
            came = torch.tensor(signals.came, device=trainer.strategy.root_device)
            signals.came = int(trainer.strategy.reduce(came, reduce_op="max"))
        if signals.came:
            raise SIGTERMException


def _is_within_step(trainer: pl.Trainer) -> bool:
    """Whether gradients of the last batches have not been used yet."""
    done: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return done % trainer.accumulate_grad_batches != 0
