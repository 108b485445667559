"""`make results`: trains models of every kind with the same small budget; writes docs/results.md.

Every number in that file comes from here. The seeds of a row are a sweep of two jobs at a time, in results/outputs/, so
that the next call continues an interrupted one. The numbers are stored in runs.json under the command of each run.
"""

import argparse
import hashlib
import json
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uses
from tqdm import tqdm

from vae_exp.data import IDX, FreyFace
from vae_exp.records import read_record
from vae_exp.runs.state import State
from vae_exp.sweeps.sweep import read_sweep

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
RUNS = HERE / "runs.json"
WORKERS = 2
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
TRAIN, ALONE, LATER = "-m vae_exp", "results/labels_alone.py", "results/from_diagonal.py"
# Options that change no number, or avoid the time for pictures and for checkpoints that are not used.
QUIET = (
    "trainer=cpu logger=csv trainer.enable_progress_bar=false callbacks.pictures=null callbacks.curves=null "
    "callbacks.last=null callbacks.early_stopping=null"
)
SCORE = "objective.kl=monte_carlo objective.estimator=score_function objective.baseline=true objective.num_samples=4"
BITS = "latent_dim=200 posterior=bernoulli"
BLOCKS = "latent_dim=200 posterior=categorical posterior.categories=10"
DENSITY = "data.dequantize=true"
SMALL_M2 = (
    "encoder.hidden=[100] encoder.out_features=100 decoder.hidden=[100,100] model.classifier.hidden=[200] "
    "model.classifier.out_features=200"
)


def falling(lr: float, steps: int) -> str:
    """A learning rate that falls to a tenth, so that the noise of the last steps affects the test less."""
    name = "optimizer.lr"
    return f"+schedule@{name}=exponential {name}.start={lr} {name}.end={lr / 10:g} {name}.steps={steps}"


@dataclass(frozen=True)
class Section:
    """Rows of a table: a name, the program, and the options that differ; each row runs with every value of `seed`."""

    common: str
    rows: dict[str, tuple[str, str]]
    seed: str
    seeds: tuple[int, ...]

    def commands(self, row: str) -> list[str]:
        program, options = self.rows[row]
        return [f"python {program} {self.common} {options} {self.seed}={seed}" for seed in self.seeds]


def trained(rows: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (TRAIN, options) for name, options in rows.items()}


SECTIONS = {
    "m2": Section(
        f"{QUIET} data=mnist model=m2 {SMALL_M2} latent_dim=5 objective.alpha=50 {falling(0.003, 3000)} "
        "data.batch_size=64 trainer.max_epochs=-1 trainer.max_steps=3000 trainer.limit_val_batches=0",
        {
            f"{labelled} labels, {name}": (program, f"data.labelled={labelled} data.labelled_per_batch={each}")
            for labelled, each in ((100, 10), (1000, 20))
            for name, program in (("m2", TRAIN), ("its classifier alone", ALONE))
        },
        "data.seed",
        (0, 1, 2),
    ),
    "bits": Section(
        f"{QUIET} data=mnist encoder.hidden=[200] encoder.out_features=200 decoder.hidden=[200,200] "
        "trainer.max_epochs=6",
        trained(
            {
                "`standard_normal`, `diagonal_normal`": "prior=standard_normal",
                "prior `mixture`": "prior=mixture",
                "prior `vamp`": "prior=vamp",
                "prior `flow`": "prior=flow",
                "posterior `full_normal`": "posterior=full_normal",
                "posterior `laplace`": "posterior=laplace",
                "posterior `flow`": "posterior=flow",
                "200 bits, score function": f"{BITS} {SCORE}",
                "200 bits, relaxed": f"{BITS} posterior.relaxed=true",
                "20 of 10 categories, score function": f"{BLOCKS} {SCORE}",
                "20 of 10 categories, relaxed": f"{BLOCKS} posterior.relaxed=true",
            }
        ),
        "seed",
        (0, 1),
    ),
    "later": Section(
        f"{QUIET} data=mnist encoder.hidden=[200] encoder.out_features=200 decoder.hidden=[200,200] "
        "trainer.max_epochs=6",
        {f"`{name}`": (LATER, f"posterior={name}") for name in ("diagonal_normal", "full_normal")},
        "seed",
        (0, 1),
    ),
    "levels": Section(
        f"{QUIET} data=frey_face encoder.hidden=[200] encoder.out_features=100 decoder.hidden=[100,32] "
        "data.batch_size=50 trainer.max_epochs=30 trainer.check_val_every_n_epoch=5",
        trained(
            {
                "`categorical_256`": "likelihood=categorical_256",
                "`discretized_logistic`": "likelihood=discretized_logistic",
            }
            | {
                f"`{name}`": f"likelihood={name} {DENSITY}"
                for name in ("continuous_bernoulli", "sse", "gaussian", "gaussian_shared", "sigma_vae", "laplace")
            }
        ),
        "seed",
        (0, 1),
    ),
}
PIXELS = 28 * 20  # of a Frey face


def all_commands(names: list[str] | None = None) -> list[str]:
    """The commands of these sections."""
    return [
        command for name in names or SECTIONS for row in SECTIONS[name].rows for command in SECTIONS[name].commands(row)
    ]


def sweep(section: Section, row: str, root: str, extra: list[str]) -> dict[str, Any]:
    """Trains the runs of a row, as a sweep over its seeds; returns what they measured, by command."""
    _, options = section.rows[row]
    name = hashlib.sha256(" ".join([section.common, options, *extra]).encode()).hexdigest()[:12]
    seeds = f"{section.seed}={','.join(map(str, section.seeds))}"
    words = [*shlex.split(f"{TRAIN} -m {section.common} {options}"), seeds, f"data.root={root}", *extra]
    subprocess.run(
        [sys.executable, *words, f"sweep.name={name}", "launcher=processes", f"launcher.jobs={WORKERS}"],
        cwd=HERE,
        env=ENV,
    )
    found = {}
    jobs = read_sweep(HERE / "outputs" / "sweeps" / name)["jobs"]
    for command, job in zip(section.commands(row), jobs, strict=True):
        record = read_record(Path(job["folder"])) if job["folder"] else {}
        seconds = round(record.get("wall_seconds") or 0, 1)
        if job["state"] == State.FINISHED:
            metrics = {name: value for name, value in record["metrics"].items() if name.startswith("test/")}
            begun = record["starts"][0]
            commit = (begun["git"] or {}).get("commit", "unknown")[:7]
            on = f"{begun['time'][:10]}, {begun['cpu']}, {begun['cpu_count']} cores, torch {begun['versions']['torch']}"
            found[command] = {"metrics": metrics, "seconds": seconds, "on": f"{on}, commit {commit}"}
        else:
            found[command] = {"failed": f"{job['state']}: {job['error']}", "seconds": seconds}
    return found


def script(section: Section, row: str, root: str, extra: list[str]) -> dict[str, Any]:
    """Runs a program of this folder for each seed; returns what it printed, or the end of its output if it failed."""
    found = {}
    for command in section.commands(row):
        words = [sys.executable, *shlex.split(command)[1:], f"data.root={root}", *extra]
        start = time.perf_counter()
        done = subprocess.run(words, cwd=HERE.parent, env=ENV, capture_output=True, text=True)
        seconds = round(time.perf_counter() - start, 1)
        if done.returncode:
            found[command] = {"failed": (done.stdout + done.stderr)[-2000:], "seconds": seconds}
        else:
            found[command] = {"metrics": json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard error; the error is nan for a single value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def bits_per_dim(elbo: float, is_density: bool) -> float:
    """For 256 levels `-elbo / (D ln 2)`; for a density at (level + u) / 256, eight more."""
    return -elbo / (PIXELS * math.log(2)) + 8 * is_density


def value_of(section: str, command: str, metrics: dict[str, float]) -> float:
    """The number for the table, from what a run measured."""
    if section == "m2":
        return 100 * metrics["test/error"]
    return bits_per_dim(metrics["test/elbo"], DENSITY in command) if section == "levels" else metrics["test/elbo"]


def values_of(name: str, row: str, runs: dict[str, Any]) -> list[float]:
    """The values of all seeds that have been run."""
    found = [(command, runs.get(command, {})) for command in SECTIONS[name].commands(row)]
    return [value_of(name, command, run["metrics"]) for command, run in found if "metrics" in run]


def against(name: str, row: str, runs: dict[str, Any]) -> str:
    """The difference between a row and the one it is compared with: the plain VAE, or the classifier alone."""
    values = values_of(name, row, runs)
    first = next(iter(SECTIONS[name].rows))
    other = row.replace("m2", "its classifier alone") if name == "m2" else first
    plain = values_of(name, other, runs)
    if row == other or not values or len(values) != len(plain):
        return ""
    if name in ("m2", "later"):  # the same labels, the same weights to start from
        mean, error = spread([a - b for a, b in zip(values, plain, strict=True)])
        is_worse = mean > 0 if name == "m2" else mean < 0
        return f"{mean:+.2f} ± {error:.2f}" + (", **worse**" if is_worse else "")
    (mean, error), (mean0, error0) = spread(values), spread(plain)
    both = math.hypot(error, error0)
    return f"{mean - mean0:+.2f} ± {both:.2f}" + (", **worse**" if mean - mean0 < -2 * both else "")


def table(name: str, runs: dict[str, Any]) -> str:
    """The rows of a section, followed by the commands."""
    section = SECTIONS[name]
    number = {"m2": "test error, %", "levels": "bits per dim, at most"}.get(name, "test ELBO")
    compared = {"m2": "against the classifier alone", "levels": ""}.get(name, "against the first row")
    lines = [f"| model | {number} | ± s.e. | n |{f' {compared} |' if compared else ''} s a run |"]
    lines.append(f"| --- | ---: | ---: | ---: |{' ---: |' if compared else ''} ---: |")
    listing = [f'{name.upper()}="{section.common}"']
    for row, (program, options) in section.rows.items():
        values = values_of(name, row, runs)
        results = [runs.get(command, {}) for command in section.commands(row)]
        seconds = [result["seconds"] for result in results if "metrics" in result]
        for seed, command, result in zip(section.seeds, section.commands(row), results, strict=True):
            said = "not run yet"
            if "metrics" in result:
                said = f"{value_of(name, command, result['metrics']):.2f}, {result['seconds']:.0f} s"
            elif "failed" in result:
                said = f"FAILED after {result['seconds']:.0f} s: see results/runs.json"
            listing.append(f"python {program} ${name.upper()} {options} {section.seed}={seed}  # {said}")
        mean, error = spread(values) if values else (math.nan, math.nan)
        cells = [
            row,
            f"{mean:.2f}",
            f"{error:.2f}",
            f"{len(values)}",
            *([against(name, row, runs)] if compared else []),
        ]
        cells.append(f"{statistics.fmean(seconds):.0f}" if seconds else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "```bash", *listing, "```"]).replace("nan", "not known")


def render(runs: dict[str, Any]) -> str:
    """The page of all results."""
    known = [runs[command] for command in all_commands() if command in runs]
    seconds = sum(run["seconds"] for run in known)
    on = sorted({run["on"] for run in known if "on" in run}) or ["not run yet"]
    failed = sum("failed" in run for run in known)
    done = f"{len(known)} of {len(all_commands())} commands, {failed} failed; {seconds / 60:.0f} minutes of one core"
    used = uses.table(json.loads(uses.USES.read_text())) if uses.USES.exists() else "Not run yet."
    tables = {name: table(name, runs) for name in SECTIONS}
    on = "\n".join(f"- {line}" for line in (*on, done))
    return (HERE / "template.md").read_text().format(on=on, uses=used, **tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, "uses", []], help="these sections, or all")
    parser.add_argument("--root", default=os.environ.get("VAE_EXP_DATA", "data"), help="folder of MNIST")
    parser.add_argument("--again", action="store_true", help="also run what has a result already")
    parser.add_argument(
        "--quick", type=Path, help="run a few steps of each, into this folder, to see that everything works"
    )
    args = parser.parse_args()
    path, page, extra = RUNS, PAGE, []
    if args.quick:
        args.quick.mkdir(parents=True, exist_ok=True)
        path, page = args.quick / "runs.json", args.quick / "results.md"
        few = (
            "max_epochs=1",
            "max_steps=3",
            "limit_train_batches=3",
            "check_val_every_n_epoch=1",
            "limit_test_batches=1",
        )
        extra = [f"trainer.{option}" for option in few]
    runs = json.loads(path.read_text()) if path.exists() else {}
    runs = {command: run for command, run in runs.items() if command in all_commands()}
    sections = [name for name in args.sections or (*SECTIONS, "uses") if name != "uses"]
    wanted = all_commands(sections) if sections else []
    rows = [(SECTIONS[name], row) for name in sections for row in SECTIONS[name].rows]
    todo = [(s, row) for s, row in rows if args.again or any("metrics" not in runs.get(c, {}) for c in s.commands(row))]
    print(f"{len(todo)} of {len(rows)} rows to run")
    if args.again:
        shutil.rmtree(HERE / "outputs", ignore_errors=True)  # whose cells would be taken as they are
    try:
        for source in (IDX("MNIST"), IDX("FashionMNIST"), FreyFace()):
            source.fetch(Path(args.root).resolve())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}\nAnother folder: VAE_EXP_DATA=... make results")
    try:
        for section, row in tqdm(todo, "rows"):
            work = sweep if section.rows[row][0] == TRAIN else script
            runs |= work(section, row, str(Path(args.root).resolve()), extra)
            path.write_text(json.dumps(dict(sorted(runs.items())), indent=1) + "\n")
        if "uses" in (args.sections or ["uses"]) and not args.quick and (args.again or not uses.USES.exists()):
            uses.main(str(Path(args.root).resolve()))
    finally:
        page.write_text(render(runs))
    failed = [command for command in wanted if "failed" in runs.get(command, {})]
    sys.exit("\n".join(["failed:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
