"""`python benchmarks/gpu.py`: what no CPU can show, in at most eight minutes; writes `gpu.md`.

Parts are measured in order, and those for which no time is left are named in the table. Without a GPU the page says
"not measured". `--try` runs everything with tiny sizes on a CPU and prints the page: it shows that the script works.

A machine without network needs wheels: `pip download hydra-core omegaconf zuko wandb mlxtend pytest filelock`.
"""

import argparse
import csv
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from run import NETWORKS, machine

import vae_exp

HERE = Path(__file__).parent
PAGE = HERE / "gpu.md"
LIMIT = 480  # seconds in all
ENV = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE.parent / "src")}
QUIET = "trainer.enable_progress_bar=false callbacks.pictures=null callbacks.curves=null report=false logger=csv"


class Bench:
    """The rows of the page.

    Arguments:
        device: `gpu`, or `cpu` to try the script.
        root: The folder of MNIST; None for images that are made up.
        scratch: Where runs are written.
    """

    def __init__(self, device: str, root: str | None, scratch: Path) -> None:
        self.device, self.scratch = device, scratch
        self.is_tried = device == "cpu"
        made_up = "data=fake data.image_shape=[1,28,28] data.source.size=600 data.val_size=100"
        self.data = f"data=mnist data.root={root}" if root else f"{made_up} likelihood=bce data.binarize=dynamic"
        self.end = time.monotonic() + LIMIT

    def run(self, words: str, program: str = "vae_exp") -> tuple[str, float]:
        """What a command prints, and its seconds of wall time.

        Raises:
            RuntimeError: If it fails; with its last lines.
        """
        left = self.end - time.monotonic()
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", program, *shlex.split(words)],
            cwd=HERE.parent if program == "pytest" else self.scratch,
            env=ENV,
            capture_output=True,
            text=True,
            timeout=max(left, 1),
        )
        if done.returncode:
            raise RuntimeError(" / ".join((done.stdout + done.stderr).strip().splitlines()[-3:]))
        return done.stdout, time.monotonic() - start

    def train(self, name: str, words: str) -> tuple[Path, dict[str, float], float]:
        """Trains a run; its folder, its numbers, and its seconds of wall time."""
        folder = self.scratch / name.replace(" ", "_").replace(",", "")
        _, seconds = self.run(f"{self.data} trainer.accelerator={self.device} {QUIET} hydra.run.dir={folder} {words}")
        return folder, json.loads((folder / "run.json").read_text())["metrics"], seconds

    def graphs(self) -> list[str]:
        """The tests of captured steps, those that need a GPU included."""
        words = "-q -p no:cacheprovider tests/training/test_graph.py"
        said, seconds = self.run(words + (" -k number_of_any_part" if self.is_tried else ""), program="pytest")
        return [f"| tests of captured steps | {said.strip().splitlines()[-1]} | {seconds:.0f} |"]

    def speed(self) -> list[str]:
        """Images a second of nets A, B and S, eagerly, captured and in bf16."""
        rows = []
        epochs = 1 if self.is_tried else 6
        for net, options in NETWORKS.items():
            for name, words in {
                "eager": "trainer.cuda_graphs=false",
                "captured": "",
                "captured, bf16": "trainer.precision=bf16-mixed",
            }.items():
                words = f"{shlex.join(options)} trainer.max_epochs={epochs} test=false {words}"
                folder, _, seconds = self.train(f"{net} {name}", words)
                with (folder / "metrics.csv").open() as file:
                    speeds = [row.get("train/images_per_second") for row in csv.DictReader(file)]
                # The first epochs warm up and capture.
                each = statistics.median([float(speed) for speed in speeds if speed][-3:])
                rows.append(f"| {net}, {name} | {each:,.0f} images/s | {seconds:.0f} |")
        return rows

    def devices(self) -> list[str]:
        """A run on both devices: terms and their gradient for the same latents, and the test split."""
        epochs = 1 if self.is_tried else 3
        folder, _, _ = self.train("devices", f"trainer.max_epochs={epochs}")
        terms, gradients = zip(*(_scored(folder, device) for device in ("cpu", _torch_name(self.device))), strict=True)
        rows = [
            f"| terms of the same latents, CPU and {self.device} | differ by {_largest(*terms):.1e} at most | |",
            f"| their gradient | differs by {_largest(*gradients):.1e} at most, relative to its norm | |",
        ]
        for device in ("cpu", self.device):
            rows.append(self.scored(folder, "elbo", f"accelerator={device}", f"test split on {device}"))
        return rows

    def scored(self, folder: Path, metric: str, words: str, title: str) -> str:
        """The row of an evaluation."""
        _, seconds = self.run(f"run={folder} progress=false metrics={metric} {words}", "vae_exp.evaluate")
        numbers = json.loads((folder / "evaluation.json").read_text())
        return f"| {title} | {metric} {numbers[metric]:.3f} | {seconds:.0f} |"

    def long(self) -> list[str]:
        """The default VAE of MNIST, 100 epochs."""
        epochs = 1 if self.is_tried else 100
        _, metrics, seconds = self.train("long", f"trainer.max_epochs={epochs} callbacks.early_stopping=null")
        return [f"| MNIST, {epochs} epochs | test ELBO {metrics['test/elbo']:.2f} | {seconds:.0f} |"]

    def sweep(self) -> list[str]:
        """Eight seeds on one GPU, two and four at a time."""
        rows, seeds = [], 2 if self.is_tried else 8
        for jobs in (2,) if self.is_tried else (1, 4):
            words = (
                f"-m {self.data} trainer.accelerator={self.device} {QUIET} trainer.max_epochs=2 seed=range(0,{seeds})"
            )
            words += f" launcher=processes launcher.jobs={jobs} sweep.cells={self.scratch}/cells{jobs}"
            _, seconds = self.run(words)
            rows.append(f"| {seeds} seeds, {jobs} at a time | finished | {seconds:.0f} |")
        return rows

    def evaluation(self) -> list[str]:
        """nll of the whole test split."""
        samples, name = (10, "devices") if self.is_tried else (5000, "long")
        words = f"nll.num_samples={samples} accelerator={self.device}"
        return [self.scored(self.scratch / name, "nll", words, f"{samples} samples, whole test split")]

    def measure(self) -> list[str]:
        """The rows of all parts."""
        parts: list[Callable[[], list[str]]] = [
            self.graphs, self.devices, self.speed, self.long, self.sweep, self.evaluation,
        ]  # fmt: skip
        rows = []
        for part in parts:
            try:
                rows += part()
            except subprocess.TimeoutExpired:
                rows.append(f"| {part.__name__} | not measured: no time left | |")
            except Exception as error:  # the other parts are worth their time on a rented GPU
                rows.append(f"| {part.__name__} | **failed**: {str(error).replace('|', '/')} | |")
            print(rows[-1], flush=True)
        return rows


def _torch_name(device: str) -> str:
    return "cuda" if device == "gpu" else device


def _scored(folder: Path, device: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Terms of some images for given latents, and the gradient of their mean ELBO, on the CPU."""
    model = vae_exp.load(folder)
    torch.manual_seed(0)
    x = (torch.rand(64, 1, 28, 28) < 0.2).float()
    z = model.draw(x).z.detach()
    terms = model.to(device).draw(x.to(device), z=z.to(device)).terms
    (terms["recon"] + terms["kl"]).mean().backward()
    gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
    return [term.detach().cpu() for term in terms.values()], gradients


def _largest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest norm of a difference, relative to the norm."""
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(one, other, strict=True))


def page(rows: list[str]) -> str:
    """What `gpu.md` says."""
    head = ["# On a GPU", "", f"Written by `benchmarks/gpu.py`: {datetime.date.today()}, {machine()}", ""]
    table = ["| what | result | seconds |", "| --- | --- | ---: |", *rows] if rows else ["Not measured: no GPU."]
    return "\n".join([*head, *table, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=os.environ.get("VAE_EXP_DATA", "data"), help="folder of MNIST")
    parser.add_argument("--try", dest="is_tried", action="store_true", help="tiny sizes on a CPU; writes no page")
    asked = parser.parse_args()
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if asked.is_tried:
            print(page(Bench("cpu", None, Path(folder)).measure()))
            return
        if torch.cuda.is_available():
            rows = Bench("gpu", str(Path(asked.root).resolve()), Path(folder)).measure()
    PAGE.write_text(page(rows))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
