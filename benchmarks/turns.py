"""Turns: each system trains in its own process, one block of steps at a time, when it gets a signal."""

import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Worker", "report", "start"]


def start() -> float:
    """Waits for the turn of this process; returns the CPU seconds that it has used so far."""
    print("\nturn: ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit
    return time.process_time()


def report(images: int, started: float) -> None:
    """Prints how many images a block trained on, and how many CPU seconds it took."""
    print(f"\nturn: {images} {time.process_time() - started}", flush=True)


class Worker:
    """A system in its own process, which trains when it is its turn."""

    def __init__(self, name: str, command: list[str], scratch: Path, env: dict[str, str]) -> None:
        self.name, self.log = name, (scratch / f"{name.strip('*')[:8]}.log").open("w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env, cwd=scratch
        )

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("turn: "):
                return line[6:].split()
        raise SystemExit(f"{self.name} ended, see {self.log.name}:\n{Path(self.log.name).read_text()[-2000:]}")

    def turn(self) -> float:
        """Images per CPU second of one block."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        images, seconds = self.hear()
        assert self.hear() == ["ready"]
        return int(images) / float(seconds)
