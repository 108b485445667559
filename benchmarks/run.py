"""`make bench`: trains in turns with vae_exp, by hand, with pythae and with usual Lightning; writes README.md.

Every number in that file comes from here. Processes with one thread take turns, one block of steps each, so that a
slower machine slows all of them; a ratio is the median over the rounds of CPU seconds by hand / CPU seconds.
"""

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from busy import busy
from torchvision.datasets import MNIST
from turns import Worker

from vae_exp.data import IDX

HERE = Path(__file__).parent
PYTHON = sys.executable
PEERS = HERE / ".venv" / "bin" / "python"
STEPS = {"A": 60, "B": 25, "S": 429}  # steps of a block; 429 are an epoch
TITLES = {
    "A": "MLP 784-500-500-20-500-500-784",
    "B": "convolutions 1-32-64, 256, latents 20",
    "S": "MLP 784-16-20-16-784, where overhead shows",
}
NETWORKS = {
    "A": [],
    "B": ["encoder=conv", "decoder=conv"],
    "S": ["encoder.hidden=[]", "encoder.out_features=16", "decoder.hidden=[16]"],
}
RESULTS = HERE / "results.json"
HEADERS = {
    "training": "net | system | images / CPU second | ratio | range over processes",
    "start": "what | CPU seconds, median of 5 | range",
    "memory": "run | peak resident MB | images / second, first quarter | last quarter",
    "growth": "batch | width | million weights | ms a step | ps a step, image and weight",
    "shares": "part | seconds | share",
    "scaling": "processes of one thread | images / second | strong scaling",
    "busy": "machine | threads | how they wait | ms a step | times one thread, quiet",
}
NOT_YET = "Not measured yet."
WORDS = ("net", "system", "what", "run", "part", "machine", "how they wait")  # columns of words
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "PYTHONWARNINGS": "ignore"}


def ours(net: str, root: str, *options: str) -> list[str]:
    return [PYTHON, "-m", "vae_exp", "data=mnist", f"data.root={root}", "trainer=cpu", *NETWORKS[net], *options]


def systems(net: str, root: str, scratch: Path) -> dict[str, list[str]]:
    """The command of each system; the others are compared with the first one."""
    steps, here = str(STEPS[net]), lambda name: str(HERE / name)
    block = (
        f"trainer.limit_train_batches={steps}", "trainer.limit_val_batches=1", "trainer.max_epochs=100000",
        "callbacks.early_stopping=null", "+callbacks.block._target_=block.Block", "logger=csv",
    )  # fmt: skip
    run = f"hydra.run.dir={scratch}/run"
    by_hand = [PYTHON, here("handwritten.py"), net, root, steps]
    found = {
        "by hand": [*by_hand, "32-true", "tuned"],
        "**vae_exp**": ours(net, root, *block, run),
        "by hand, `(x[rows] / 255).bernoulli()`": [*by_hand, "32-true", "plain"],
        "Lightning as usual": [PYTHON, here("lightning_usual.py"), net, root, steps, str(scratch / "lightning")],
    }
    if PEERS.exists():
        found["pythae"] = [str(PEERS), here("pythae_trainer.py"), net, f"{scratch}/bits.pt", steps, f"{scratch}/pythae"]
    if net == "A" and has_bf16():
        found["by hand, bf16"] = [*by_hand, "bf16-mixed", "tuned"]
        found["**vae_exp**, bf16"] = ours(net, root, *block, f"{run}16", "trainer.precision=bf16-mixed")
    return found


def has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_bf16" in info.read_text()


def compare(net: str, root: str, repeats: int, rounds: int) -> list[str]:
    """Rows of the table of one network."""
    ratios: dict[str, list[float]] = {}
    speeds: dict[str, list[float]] = {}
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            torch.save((MNIST(root).data[:60000].unsqueeze(1) > 127).byte(), scratch / "bits.pt")
            workers = [Worker(name, command, scratch, ENV) for name, command in systems(net, root, scratch).items()]
            for worker in workers:  # they start together and warm up one after the other
                assert worker.hear() == ["ready"]
            for worker in workers:
                worker.turn()
            blocks = [[worker.turn() for worker in workers] for _ in range(rounds)]
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
        for k, worker in enumerate(workers):
            speeds.setdefault(worker.name, []).append(statistics.median(row[k] for row in blocks))
            ratios.setdefault(worker.name, []).append(statistics.median(row[k] / row[0] for row in blocks))
        print(net, repeat, {name: round(values[-1], 3) for name, values in ratios.items()}, flush=True)
    return [
        f"| {net} | {name} | {statistics.median(speeds[name]):,.0f} | {statistics.median(values):.2f} "
        f"| {min(values):.2f} - {max(values):.2f} |"
        for name, values in ratios.items()
    ]


def children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def cpu_seconds(command: list[str], cwd: Path) -> float:
    """CPU seconds of a whole command."""
    before = children_cpu()
    subprocess.run(command, cwd=cwd, env=ENV, check=True, capture_output=True)
    return children_cpu() - before


def start_up(root: str, scratch: Path) -> list[str]:
    minimum = [
        "import torch, pytorch_lightning as pl",
        "class M(pl.LightningModule):",
        "    def __init__(self): super().__init__(); self.w = torch.nn.Linear(1, 1)",
        "    def training_step(self, b, i): return self.w(b[0]).mean()",
        "    def configure_optimizers(self): return torch.optim.Adam(self.parameters())",
        "data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)))",
        "quiet = {'logger': False, 'enable_checkpointing': False}",
        "pl.Trainer(accelerator='cpu', devices=1, max_steps=1, **quiet).fit(M(), data)",
    ]
    ends = ("trainer.max_steps=1", "trainer.limit_val_batches=0", "test=false", "logger=none")
    after = ("callbacks.pictures=null", "callbacks.curves=null")  # they come after the first step
    folder = f"hydra.run.dir={scratch}/start/${{now:%f}}"
    typo = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'vae_exp', 'encoder=x'])"
    commands = {
        "`--help`": [PYTHON, "-m", "vae_exp", "--help"],
        "`--cfg job`": [PYTHON, "-m", "vae_exp", "--cfg", "job"],
        "an option that does not exist": [PYTHON, "-c", typo],
        "Lightning's own minimum, one step": [PYTHON, "-c", "\n".join(minimum)],
        "`vae_exp`, one step": [PYTHON, "-m", "vae_exp", "data=fake", "trainer=cpu", *ends, *after, folder],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            times[name].append(cpu_seconds(command, scratch))
    return [f"| {name} | {statistics.median(v):.2f} | {min(v):.2f} - {max(v):.2f} |" for name, v in times.items()]


def resident(command: list[str], cwd: Path) -> float:
    """Peak resident memory of a command in MB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, "
        "stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([PYTHON, "-c", code, *command], cwd=cwd, env=ENV, check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def memory(root: str, scratch: Path) -> list[str]:
    """Peak memory, and the speed of the first and last quarter of the epochs: neither should change."""
    rows = []
    for epochs in (4, 16):
        short = (f"trainer.max_epochs={epochs}", "trainer.limit_train_batches=60", "logger=csv")
        folder = scratch / f"memory{epochs}"
        peak = resident(ours("A", root, *short, f"hydra.run.dir={folder}"), scratch)
        lines = csv.DictReader((folder / "metrics.csv").open())
        speeds = [float(row["train/images_per_second"]) for row in lines if row["train/images_per_second"]]
        first, last = (statistics.median(part) for part in (speeds[: epochs // 4], speeds[-epochs // 4 :]))
        rows.append(f"| A, {epochs} epochs of 60 steps | {peak:,.0f} | {first:,.0f} | {last:,.0f} |")
    return rows


def growth(root: str, scratch: Path) -> list[str]:
    """Seconds for each step, by batch size and width."""
    rows = []
    for batch, width in ((64, 500), (128, 500), (256, 500), (512, 500), (128, 250), (128, 1000)):
        folder = scratch / f"growth{batch}_{width}"
        size = f"encoder.hidden=[{width}] encoder.out_features={width} decoder.hidden=[{width},{width}]".split()
        run = ("trainer.max_epochs=1", "trainer.limit_train_batches=60", "trainer.log_every_n_steps=20", "test=false")
        command = ours("A", root, *size, f"data.batch_size={batch}", *run, "logger=csv", f"hydra.run.dir={folder}")
        subprocess.run(command, cwd=scratch, env=ENV, check=True, capture_output=True)
        seconds = batch / json.loads((folder / "run.json").read_text())["metrics"]["train/images_per_second"]
        weights = 2 * (784 * width + width * width) + 3 * 20 * width
        per_weight = 1e12 * seconds / (batch * weights)
        rows.append(f"| {batch} | {width} | {weights / 1e6:.2f} | {1e3 * seconds:.1f} | {per_weight:.0f} |")
    return rows


def shares(root: str, scratch: Path) -> list[str]:
    """How a run of the default model spends its time."""
    command = ours("A", root, "trainer.max_epochs=5", "+callbacks.shares._target_=shares.Shares", "logger=csv")
    subprocess.run([*command, f"hydra.run.dir={scratch}/shares"], cwd=scratch, env=ENV, check=True, capture_output=True)
    seconds = json.loads((scratch / "shares" / "shares.json").read_text())
    total = sum(seconds.values())
    return [f"| {name} | {value:.1f} | {100 * value / total:.1f} % |" for name, value in seconds.items()]


def scaling(root: str, scratch: Path) -> list[str]:
    """Wall seconds of one epoch with one process and with two, each with one thread."""
    rows, seconds = [], {}
    for devices in (1, 2):
        options = ("trainer=ddp", "trainer.accelerator=cpu") if devices == 2 else ()
        speeds = []
        for repeat in range(2):
            folder = scratch / f"scale{devices}{repeat}"
            run = ours(
                "A", root, *options, f"trainer.devices={devices}", "trainer.max_epochs=1", "test=false", "logger=csv"
            )
            subprocess.run([*run, f"hydra.run.dir={folder}"], cwd=scratch, env=ENV, check=True, capture_output=True)
            speeds.append(json.loads((folder / "run.json").read_text())["metrics"]["train/images_per_second"])
        seconds[devices] = statistics.median(speeds)
        rows.append(f"| {devices} | {seconds[devices]:,.0f} | {seconds[devices] / seconds[1]:.2f} |")
    return rows


def table(header: str, rows: list[str]) -> str:
    names = header.split(" | ")
    line = " | ".join("---" if name in WORDS else "---:" for name in names)
    return "\n".join([f"| {header} |", f"| {line} |", *rows])


def machine() -> str:
    """Hardware and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if "model name" in line), platform.processor())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    packages = ("torch", "pytorch-lightning", "hydra-core", "torchvision")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    if PEERS.exists():
        code = "import importlib.metadata; print('pythae', importlib.metadata.version('pythae'))"
        versions.append(subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    bf16 = " with AVX512_BF16" if has_bf16() else ""
    return f"{cpu}{bf16}, {os.cpu_count()} cores, {gpu}, Python {platform.python_version()}, {', '.join(versions)}"


def render(results: dict[str, Any]) -> str:
    """The page of all results."""
    return (
        (HERE / "template.md")
        .read_text()
        .format(
            on="\n".join(f"- {line}" for line in sorted({result["on"] for result in results.values()})),
            networks="\n".join(f"- **{net}**: {title}; blocks of {STEPS[net]} steps" for net, title in TITLES.items()),
            **{name: table(HEADERS[name], results[name]["rows"]) if name in results else NOT_YET for name in HEADERS},
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help="what to measure again: training, start, ...; all by default")
    parser.add_argument("--root", default=os.environ.get("VAE_EXP_DATA", "data"), help="folder of MNIST")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each system")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each process")
    args = parser.parse_args()
    root = str(Path(args.root).resolve())
    try:
        IDX("MNIST").fetch(Path(root))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}\nAnother folder: VAE_EXP_DATA=... make bench")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measures: dict[str, Callable[[str, Path], list[str]]] = {
        "start": start_up,
        "memory": memory,
        "growth": growth,
        "shares": shares,
        "scaling": scaling,
        "busy": lambda root, scratch: busy(ours, ENV, root, scratch),
        "training": lambda root, _: [row for net in STEPS for row in compare(net, root, args.repeats, args.rounds)],
    }
    for name in args.sections or measures:
        with tempfile.TemporaryDirectory() as folder:
            rows = measures[name](root, Path(folder))
        results[name] = {"rows": rows, "on": f"{datetime.date.today()}, {machine()}"}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "README.md").write_text(render(results))


if __name__ == "__main__":
    main()
