"""`make results`: trains models of every kind with the same small budget; writes docs/results.md.

Every number in that file comes from here. Two workers with one thread each run the commands as a user types them. Their
results are stored in runs.json under the command. A command that has a result is not run again, so the next call
continues an interrupted one; a command that failed is tried again.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uses

from vae_exp.data import IDX, FreyFace

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
RUNS = HERE / "runs.json"
WORKERS = 2
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
    """The commands of these sections, the long ones first, so that two workers end at about the same time."""
    found = [
        command for name in names or SECTIONS for row in SECTIONS[name].rows for command in SECTIONS[name].commands(row)
    ]
    long = (f"{TRAIN} {SECTIONS['m2'].common}", "categorical_256", "score_function", "posterior=flow", "vamp")
    return sorted(found, key=lambda command: next((k for k, part in enumerate(long) if part in command), len(long)))


def carry_out(command: str, root: str, extra: list[str]) -> dict[str, Any]:
    """Runs a command in its own folder; returns what it measured or, if it failed, the end of its output."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, *shlex.split(command)[1:], f"data.root={root}", *extra]
        if TRAIN in command:
            words.append(f"hydra.run.dir={folder}/run")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        start = time.perf_counter()
        done = subprocess.run(words, cwd=HERE.parent, env=env, capture_output=True, text=True)
        seconds = round(time.perf_counter() - start, 1)
        if done.returncode:
            return {"failed": (done.stdout + done.stderr)[-2000:], "seconds": seconds}
        if TRAIN not in command:
            return {"metrics": json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}
        record = json.loads((Path(folder) / "run" / "run.json").read_text())
        metrics = {name: value for name, value in record["metrics"].items() if name.startswith("test/")}
        begun = record["starts"][0]
        commit = (begun["git"] or {}).get("commit", "unknown")[:7]
        on = f"{begun['time'][:10]}, {begun['cpu']}, {begun['cpu_count']} cores, torch {begun['versions']['torch']}"
        on += f", commit {commit}"
        return {"metrics": metrics, "seconds": seconds, "on": on}


def run_all(commands: list[str], runs: dict[str, Any], path: Path, root: str, extra: list[str]) -> None:
    """Runs the missing commands, and writes the file after each one."""
    start = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {pool.submit(carry_out, command, root, extra): command for command in commands}
        try:
            for count, job in enumerate(as_completed(jobs), start=1):
                runs[jobs[job]] = result = job.result()
                path.write_text(json.dumps(dict(sorted(runs.items())), indent=1) + "\n")
                metrics = result.get("metrics", {})
                value = next((f"{key} {metrics[key]:.3f}" for key in ("test/error", "test/elbo") if key in metrics), "")
                passed = time.perf_counter() - start
                left = passed / count * (len(jobs) - count) / 60  # too large at first, because the long ones come first
                state = value if value else f"FAILED: {result['failed'].strip().splitlines()[-1:]}"
                print(
                    f"[{count}/{len(jobs)}] {short(jobs[job])}: {state}, {result['seconds']:.0f} s; "
                    f"about {left:.0f} min left",
                    flush=True,
                )
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def short(command: str) -> str:
    """A command without the options that all commands of its section share."""
    return next((command.replace(f"{s.common} ", "") for s in SECTIONS.values() if s.common in command), command)


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
    todo = [command for command in wanted if args.again or "metrics" not in runs.get(command, {})]
    print(f"{len(todo)} of {len(wanted)} commands to run, {WORKERS} at a time")
    try:
        for source in (IDX("MNIST"), IDX("FashionMNIST"), FreyFace()):
            source.fetch(Path(args.root).resolve())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}\nAnother folder: VAE_EXP_DATA=... make results")
    try:
        run_all(todo, runs, path, str(Path(args.root).resolve()), extra)
        if "uses" in (args.sections or ["uses"]) and not args.quick and (args.again or not uses.USES.exists()):
            uses.main(str(Path(args.root).resolve()))
    finally:
        page.write_text(render(runs))
    failed = [command for command in wanted if "failed" in runs.get(command, {})]
    sys.exit("\n".join(["failed:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
