"""CPU seconds to compare 1,000 runs of 200 rows, in a process of its own: `python benchmarks/compare.py`.

The folders are copies of one real run with its own seed, latent_dim and beta, and rows made up for it.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROWS = 200
LATENT_DIMS = (2, 4, 8, 16, 32)
BETAS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
BOUND = {"of": "log p(x)", "representation": "bits, dynamic", "kind": "mass", "is_bound": True}
HEAD = (
    "step,train/elbo,train/recon,train/kl,train/loss,epoch,seconds,val/active_units,val/elbo,val/recon,val/kl,val/loss"
)


def config_of_a_run() -> dict:
    command = [sys.executable, "-m", "vae_exp", "model=beta_vae", "--cfg", "job", "--resolve"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return yaml.safe_load(done.stdout)


def row_of(step: int, level: float, noise: random.Random) -> str:
    """Every second one is a validation."""
    train = f"{step},{level + noise.random()},90.123456789012,10.123456789012,100.12345678901,{step // 2},{step / 7}"
    val = f"12,{level - 50 / (step + 1) + noise.random()},90.1234567890123,10.1234567890123,100.1234567890123"
    return f"{train},{val if step % 2 else ',,,,'}"


def write_runs(folder: Path, count: int) -> None:
    noise = random.Random(0)
    config = config_of_a_run()
    for number in range(count):
        place, seed = divmod(number, count // (len(LATENT_DIMS) * len(BETAS)) or 1)
        beta, dim = BETAS[place % len(BETAS)], LATENT_DIMS[place // len(BETAS) % len(LATENT_DIMS)]
        run = folder / f"{number:04}"
        run.mkdir(parents=True)
        config |= {"seed": seed, "latent_dim": dim}
        config["data"]["train_seed"] = seed
        config["objective"]["beta"] = beta
        (run / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
        level = -100 - abs(beta - 1) - 20 / dim
        rows = [row_of(step, level, noise) for step in range(ROWS)]
        (run / "metrics.csv").write_text("\n".join([HEAD, *rows]) + "\n")
        test = {"test/elbo": level + noise.random(), "test/kl": 10 / beta, "test/recon": -level - 10 / beta}
        record = {
            "run_id": run.name, "seed": seed, "status": "finished", "bound": BOUND, "choices": {"model": "beta_vae"},
            "overrides": [f"latent_dim={dim}", f"objective.beta={beta}", f"seed={seed}"],
            "data": {"train": "a", "val": "b", "test": "c"}, "metrics": {"best/val/elbo": level, **test},
        }  # fmt: skip
        (run / "run.json").write_text(json.dumps(record, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        write_runs(Path(scratch, "outputs"), count)
        command = [sys.executable, "-m", "vae_exp.compare", "outputs/**"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = sum(file.stat().st_size for file in Path(scratch, "outputs", "comparisons").rglob("*"))
        print("\n".join(done.stdout.splitlines()[-3:]))
        print(
            f"{count} runs of {ROWS} rows: {seconds:.1f} CPU seconds, {size / 1e6:.1f} MB of tables, figures and page"
        )


if __name__ == "__main__":
    main()
