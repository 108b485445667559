"""Runs command lines in forks of one process, so that a line costs no start of Python."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from helpers.runs import ROOT, environment
from helpers.serve_lines import NEEDS_TORCH

__all__ = ["NEEDS_TORCH", "Lines", "Outcome"]


class Outcome(NamedTuple):
    """How a line ended."""

    code: int
    said: str
    left: list[str]  # what it left in its folder, which was empty
    seconds: float  # of CPU

    def wrong(self) -> str:
        """What is wrong with the refusal; empty if nothing is."""
        faults = {
            f"exit code {self.code}": self.code != 2,
            "trace": "Traceback" in self.said,
            "more than 6 lines": len(self.said.strip().splitlines()) > 6,
            f"left {self.left}": bool(self.left),
            "no word": "error: " not in self.said,
            f"{self.seconds} s": self.seconds > 3,
        }
        return ", ".join(fault for fault, is_so in faults.items() if is_so)


class Lines:
    """A process that runs lines; with `torch=False` one that would import torch ends there, with `NEEDS_TORCH`."""

    def __init__(self, torch: bool = False) -> None:
        words = [sys.executable, str(Path(__file__).with_name("serve_lines.py")), *(["torch"] if torch else [])]
        env = environment(PYTHONPATH=os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests"))))
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, *words: str, command: str = "train") -> Outcome:
        """Runs one line."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([command, *words]) + "\n")
        self.process.stdin.flush()
        return Outcome(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()
