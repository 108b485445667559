"""CPU seconds of a sweep of tiny runs, and of the same one when all are finished: `python benchmarks/sweeps.py`.

`--package FOLDER` measures the `src` of another checkout; one without cells trains everything twice.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TINY = """
data=fake data.image_shape=[1,8,8] data.source.size=64 data.val_size=16 data.batch_size=16 latent_dim=3
encoder.hidden=[8] encoder.out_features=8 decoder.hidden=[8] trainer.accelerator=cpu trainer.max_epochs=2
trainer.enable_progress_bar=false logger=csv
"""


def cpu_seconds(jobs: int, folder: str, package: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "vae_exp", "-m", *TINY.split(), f"seed=range(0,{jobs})"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--jobs", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = cpu_seconds(2, folder, asked.package)
    with tempfile.TemporaryDirectory() as folder:
        first = cpu_seconds(asked.jobs, folder, asked.package)
        again = cpu_seconds(asked.jobs, folder, asked.package)
    print(f"| each job, CPU s | {(first - few) / (asked.jobs - 2):.2f} |")
    print(f"| {asked.jobs} jobs, all finished before, CPU s | {again:.1f} |")


if __name__ == "__main__":
    main()
