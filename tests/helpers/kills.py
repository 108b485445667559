"""A callback that kills its own process, as a power cut does, at a moment that an environment variable names."""

import os
import random
import signal

from pytorch_lightning.callbacks import Callback

MOMENT = "KILL_AT"  # "train 7": in the seventh training batch of the process; "write 2": in its second checkpoint
MOMENTS = ("train", "validation", "test", "write", "end")


def moments(seed: int, number: int) -> list[str]:
    """So many moments, of every kind."""
    draw = random.Random(seed)
    last = {"train": 9, "validation": 4, "test": 2, "write": 4, "end": 1}
    return [f"{kind} {draw.randint(1, last[kind])}" for kind in (MOMENTS * number)[:number]]


class Kill(Callback):
    def setup(self, trainer, pl_module, stage):
        self.kind, _, number = os.environ.get(MOMENT, "never 0").partition(" ")
        self.left = int(number)
        if self.kind == "write" and stage == "fit":
            fsync = os.fsync

            def cut(file):  # the whole file is written, but has not its name yet
                self._count("write")
                fsync(file)

            os.fsync = cut

    def _count(self, kind):
        if kind == self.kind:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, *args):
        self._count("train")

    def on_validation_batch_end(self, *args):
        self._count("validation")

    def on_test_batch_end(self, *args):
        self._count("test")

    def on_train_end(self, *args):
        self._count("end")
