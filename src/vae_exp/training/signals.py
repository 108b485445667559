"""Signals: Ctrl-C and SIGTERM end training between two steps, where weights, counters and data agree."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

__all__ = ["signals_between_steps"]


@contextmanager
def signals_between_steps(trainer: pl.Trainer) -> Iterator[None]:
    """Within it, Lightning treats Ctrl-C as it treats SIGTERM: it waits for the end of the step; a second one does not.

    A KeyboardInterrupt within a step would save weights of the next step with the counters of this one.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After SIGTERM, with 143, as a shell reports it; Lightning alone would exit with 0.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        trainer._signal_connector.received_sigterm = True

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, note) if is_main else None
    try:
        yield
    except SIGTERMException as error:
        if came:
            raise KeyboardInterrupt from error
        raise SystemExit(143) from error
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
    if came:  # after the last step: the test has come to its end, but what follows must not begin
        raise KeyboardInterrupt
