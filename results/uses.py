"""Scores and uses one trained model; `make results` runs it and writes its part of docs/results.md."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
USES = HERE / "uses.json"
EVALUATE, GENERATE = "-m vae_exp.evaluate run=RUN", "-m vae_exp.generate run=RUN"
# The network of Burda et al. (2016) with one stochastic layer.
COMMANDS = (
    "-m vae_exp data=mnist encoder.hidden=[200] encoder.out_features=200 decoder.hidden=[200,200] latent_dim=50 "
    "encoder.activation=Tanh decoder.activation=Tanh trainer.max_epochs=10 trainer=cpu logger=csv hydra.run.dir=RUN",
    f"{EVALUATE} metrics=[nll] num_samples=5000",
    f"{EVALUATE} metrics=ais ais.num_images=10",
    f"{EVALUATE} metrics=[elbo,train_gap,latents,amortisation,labels,quality] num_samples=1000",
    f"{GENERATE} what=anomalies against=fashion_mnist score=elbo",
    f"{GENERATE} what=anomalies against=fashion_mnist score=iwae",
    f"{GENERATE} what=inpaint mask=half",
    f"{GENERATE} what=inpaint mask=random",
)
# The file in the run folder to which a command writes its numbers.
FILES = {"what=anomalies": "images/anomalies/anomalies.json", "what=inpaint": "images/inpaint/inpaint.json"}


def measured(words: list[str]) -> dict[str, float]:
    """Runs a command; returns wall and CPU seconds, and peak resident memory in MB."""
    start = time.perf_counter()
    # Not `subprocess.run`: with `wait4`, the kernel reports the use of this one process.
    started = subprocess.Popen(words, env={**os.environ, "PYTHONWARNINGS": "ignore"}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(words)} failed")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def carry_out(root: str) -> dict[str, Any]:
    """Runs every command in turn; returns what it took and the numbers it gave."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run, known = Path(folder) / "run", {}
        for command in COMMANDS:
            where = f"data.root={root}" if command == COMMANDS[0] else ""
            took = measured([sys.executable, *shlex.split(f"{command.replace('RUN', str(run))} {where}")])
            path = next((file for part, file in FILES.items() if part in command), "evaluation.json")
            numbers = json.loads((run / path).read_text()) if (run / path).exists() else {}
            found[command] = {**took, "numbers": {k: v for k, v in numbers.items() if known.get(k) != v}}
            known = known | numbers if path == "evaluation.json" else known
            print(f"{command}: {took['seconds']:.0f} s", flush=True)
        record = json.loads((run / "run.json").read_text())
        begun = record["starts"][0]
        found["on"] = f"{begun['time'][:10]}, {begun['cpu']}, {begun['cpu_count']} cores, seed {record['seed']}"
    return found


def table(found: dict[str, Any]) -> str:
    """This part of the page: each command with what it took and the numbers it gave."""
    lines = [f"- {found['on']}", ""]
    for command in COMMANDS:
        one = found[command]
        took = f"{one['seconds'] / 60:.1f} min, {one['cpu_seconds'] / 60:.1f} min of CPU, {one['peak_mb']:,} MB at most"
        lines += ["```bash", f"python {command}  # {took}", "```", ""]
        rows = [row for name in one["numbers"] if (row := text(one["numbers"], name))]
        lines += ["| number | |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join(lines).rstrip()


def text(numbers: dict[str, Any], name: str) -> str:
    """A row with a number and its errors; empty if it is not a number, or is the error of another number."""
    value = numbers[name]
    if name.endswith("_curve"):
        return f"| `{name}` | {', '.join(f'{k}: {bound:.2f}' for k, bound in value.items())} |"
    if isinstance(value, bool) or not isinstance(value, float) or "_se" in name:
        return ""
    errors = [numbers.get(f"{name}_se_{over}", numbers.get(f"{name}_se")) for over in ("images", "draws")]
    return f"| `{name}` | {value:.4g}{''.join(f' ± {error:.2g}' for error in errors if error is not None)} |"


def main(root: str) -> None:
    """Runs all commands and saves the numbers."""
    USES.write_text(json.dumps(carry_out(root), indent=1) + "\n")


if __name__ == "__main__":
    main(str(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("VAE_EXP_DATA", "data")).resolve()))
