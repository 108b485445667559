"""Turns: each system trains in a process of its own, one block of steps at a time, when it is told to."""

import sys
import time

__all__ = ["report", "start"]


def start() -> float:
    """Waits for this process's turn; returns the CPU seconds it has used so far."""
    print("\nturn: ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit
    return time.process_time()


def report(images: int, started: float) -> None:
    """Says how many images a block trained on, and the CPU seconds it took."""
    print(f"\nturn: {images} {time.process_time() - started}", flush=True)
