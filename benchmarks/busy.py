"""A step on a quiet machine and on one where other processes use every core, by threads and by how these wait."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

__all__ = ["busy"]

# GOMP_SPINCOUNT, how often a thread looks before it sleeps, goes before OMP_WAIT_POLICY; libgomp's own is 300,000.
WAITING = {
    "as libgomp does": {"GOMP_SPINCOUNT": "300000"},
    "a short spin": {"GOMP_SPINCOUNT": "1000"},
    "asleep (vae_exp)": {"OMP_WAIT_POLICY": "PASSIVE"},
}
REPEATS = 3
STEPS = 100


def busy(train: Callable[..., list[str]], env: dict[str, str], root: str, scratch: Path) -> list[str]:
    """Milliseconds of a step of the default model, the median of some runs.

    Arguments:
        train: Gives the command that trains a net of the benchmarks on MNIST in `root`, with options.
        env: The environment of a run.
        root: The folder of MNIST.
        scratch: An empty folder.
    """
    ways = [("1", "as libgomp does"), *(("2", way) for way in WAITING)]
    rows, quiet = [], 0.0
    for others, (threads, way) in product((0, os.cpu_count() or 1), ways):
        times = []
        with _beside(others):
            for repeat in range(REPEATS):
                folder = scratch / f"{others}{threads}{way}{repeat}"
                options = (
                    "trainer.max_epochs=1", f"trainer.limit_train_batches={STEPS}", "trainer.log_every_n_steps=20",
                    "test=false", "logger=csv", f"hydra.run.dir='{folder}'",
                )  # fmt: skip
                here = {**env, "OMP_NUM_THREADS": threads, **WAITING[way]}
                subprocess.run(train("A", root, *options), cwd=scratch, env=here, check=True, capture_output=True)
                metrics = json.loads((folder / "run.json").read_text())["metrics"]
                times.append(1000 * 128 / metrics["train/images_per_second"])
        took = statistics.median(times)
        quiet = quiet or took
        waits = way if threads == "2" else "does not wait"
        rows.append(f"| {'busy' if others else 'quiet'} | {threads} | {waits} | {took:.1f} | {took / quiet:.2f} |")
    return rows


@contextmanager
def _beside(number: int) -> Iterator[None]:
    """Within it so many other processes use a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
