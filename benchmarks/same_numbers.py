"""Whether a change keeps all numbers the same: twelve small runs, with every logged value and the last weights.

`python benchmarks/same_numbers.py A.json` trains them and writes A.json; `... A.json B.json` compares two such files
bit for bit. The script uses only the command line, so it works for any commit: PYTHONPATH chooses the code. Options
whose default may change are given. It takes about two CPU minutes. Compare only files from the same machine.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from vae_exp.config import CONF

COMMON = """
latent_dim=4 seed=1 trainer.accelerator=cpu trainer.max_epochs=3 trainer.log_every_n_steps=1 logger=csv report=false
trainer.enable_progress_bar=false callbacks.early_stopping=null optimizer.lr=0.003
"""
# Of a normal on grey pixels the mean became a sigmoid by default; commits before that have no key for it.
HAS_MEAN = "mean:" in (Path(CONF) / "likelihood" / "gaussian.yaml").read_text()
IDENTITY = "likelihood.mean=identity" if HAS_MEAN else ""
MLP = "encoder=mlp encoder.hidden=[16] encoder.out_features=16 decoder=mlp decoder.hidden=[16]"
CONV = (
    "encoder=conv encoder.channels=[4,8] encoder.out_features=16 decoder=conv decoder.channels=[8,4] decoder.hidden=16"
)
RESNET = "encoder=resnet encoder.channels=[4,8] encoder.blocks=1 decoder=resnet decoder.channels=[8,4] decoder.blocks=1"
GREY = (
    "data=fake data.image_shape=[1,8,8] data.source.size=512 data.val_size=128 data.batch_size=32"  # 12 steps an epoch
)
BITS = "data=digits data.binarize=dynamic data.batch_size=128 likelihood=bce"  # 10 steps an epoch
# One command for each run. If there are two, the second continues where the first stopped, in the middle of an epoch.
RUNS = {
    "vae, elbo, bce, vamp": [f"model=vae objective=elbo prior=vamp prior.pseudo_inputs=10 {BITS} {MLP}"],
    "cvae, sse, mixture": [f"model=cvae objective=elbo likelihood=sse prior=mixture {GREY} {CONV}"],
    "beta_vae, scheduled beta": [
        "model=beta_vae likelihood=discretized_logistic corruption=gaussian +schedule@objective.beta=linear "
        f"objective.beta.end=4 objective.beta.steps=20 {GREY} {MLP}"
    ],
    "hvae, gaussian": [f"model=hvae model.upper_dims=[2] likelihood=gaussian {IDENTITY} {GREY} {MLP}"],
    "m2, 100 labels": [
        f"model=m2 model.classifier.hidden=[16] data.labelled=100 data.labelled_per_batch=16 {BITS} {MLP}"
    ],
    "ae, laplace, mask": [f"model=ae likelihood=laplace corruption=mask {GREY} {RESNET}"],
    "iwae, dreg, full_normal, flow": [
        "objective=iwae objective.estimator=dreg likelihood=continuous_bernoulli posterior=full_normal prior=flow "
        f"data.dequantize=true {GREY} {MLP}"
    ],
    "beta_tcvae, gaussian_shared": [
        f"objective=beta_tcvae objective.beta=6 likelihood=gaussian_shared {IDENTITY} decoder.output_bias=mean {GREY} "
        f"{MLP}"
    ],
    "wake_sleep, categorical_256": [f"objective=wake_sleep likelihood=categorical_256 prior=mixture {GREY} {MLP}"],
    "mmd, scheduled rate": [
        "objective=mmd objective.alpha=0.5 objective.weight=100 likelihood=bce posterior=laplace "
        f"+schedule@optimizer.lr=cyclical optimizer.lr.end=0.01 optimizer.lr.period=10 {BITS} {MLP}"
    ],
    "sigma_vae, resumed": [
        f"objective=capacity likelihood=sigma_vae {IDENTITY} trainer.max_steps=17 test=false {GREY} {MLP}",
        "trainer.max_steps=30 trainer.max_epochs=9 test=true",
    ],
    "dip, two processes": [
        f"objective=dip objective.kind=2 objective.off_diagonal=5 objective.diagonal=2 trainer=ddp {BITS} {MLP}"
    ],
}


def train(folder: Path, commands: list[str]) -> dict[str, Any]:
    """The rows of metrics.csv, unchanged, and the sha256 of the last weights."""
    commands = [f"{commands[0]} {COMMON} hydra.run.dir={folder}", *(f"resume={folder} {c}" for c in commands[1:])]
    for command in commands:
        line = [sys.executable, "-m", "vae_exp", *command.split()]
        done = subprocess.run(line, cwd=folder.parent, env=ENV, text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v and "second" not in k} for row in csv.DictReader(file)]
    weights = sha256()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in sorted(state.items()):
        weights.update(name.encode() + tensor.contiguous().numpy().tobytes())
    start = json.loads((folder / "run.json").read_text())["starts"][-1]
    code = {"commit": start["git"], "torch": start["versions"]["torch"], "cpu": start["cpu"]}
    return {"commands": commands, "rows": rows, "weights": weights.hexdigest(), "code": code}


def difference(a: dict[str, Any], b: dict[str, Any]) -> str:
    """The first place where two runs differ; empty if they are equal."""
    for one, other in zip_longest(a["rows"], b["rows"], fillvalue={}):
        for name in dict.fromkeys([*one, *other]):
            if one.get(name) != other.get(name):
                return f"step {(one or other)['step']}, {name}: {one.get(name)} | {other.get(name)}"
    return "" if a["weights"] == b["weights"] else "the last weights"


def compare(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Prints one row for each run; returns whether all are equal."""
    for one, other in zip(of_code(a), of_code(b), strict=True):
        print(f"{one} | {other}")
    print(f"\n{'run':31} rows  first difference")
    differences = []
    for name in dict.fromkeys([*a, *b]):
        differences.append(difference(a[name], b[name]) if name in a and name in b else "in one file alone")
        print(f"{name:31} {len((a.get(name) or b[name])['rows']):4}  {differences[-1] or 'equal'}")
    return not any(differences)


def of_code(runs: dict[str, Any]) -> list[str]:
    """Commit, torch and processor of the first run."""
    return [f"{name}: {value}" for name, value in next(iter(runs.values()))["code"].items()]


ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
if __name__ == "__main__":
    paths = [Path(path) for path in sys.argv[1:]]
    if len(paths) == 2:
        sys.exit(not compare(*(json.loads(path.read_text()) for path in paths)))
    elif len(paths) != 1:
        sys.exit(__doc__)
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, commands in RUNS.items():
            runs[name] = train(Path(scratch) / str(len(runs)), commands)
            print(f"{name:31} {len(runs[name]['rows']):4} rows", flush=True)
    paths[0].write_text(json.dumps(runs, indent=1) + "\n")
