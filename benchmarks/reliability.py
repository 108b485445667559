"""`make reliability`: kills runs at events, resumes them, compares them with runs left alone; docs/reliability.md.

Every line of that file comes from here. `--rounds 6 --only-rounds` is the sample that the tests run.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(HERE.parent / "tests"))

from helpers.rounds import BASE, EVENTS, KINDS, forked, number_of_rows, rounds  # noqa: E402

PAGE = HERE.parent / "docs" / "reliability.md"


def memory_and_handles(pid: int) -> tuple[float, int]:
    """Resident MB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def watched(words: list[str], folder: Path, done: list[float], progress) -> tuple[int, list[tuple[float, float, int]]]:
    """Runs a command; at each share of its work that is done: seconds, MB, open files."""
    folder.mkdir()
    pid, began, seen = forked(words, folder), time.monotonic(), []
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if len(seen) < len(done) and progress() >= done[len(seen)]:
            seen.append((time.monotonic() - began, *memory_and_handles(pid)))
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def soak(folder: Path, steps: int, jobs: int) -> list[str]:
    """Lines of a table: a long run, and a sweep of many jobs."""
    words = [word for word in BASE if not word.startswith(("trainer.max_epochs", "trainer.log", "callbacks.early"))]
    quiet = ("callbacks.early_stopping=null", "trainer.max_epochs=-1", f"trainer.max_steps={steps}")
    long = [*words, *quiet, "trainer.log_every_n_steps=500", "trainer.check_val_every_n_epoch=100", "hydra.run.dir=run"]
    run = folder / "long" / "run"
    marks = [0.1, 0.4, 0.7, 0.99]
    code, seen = watched(long, folder / "long", marks, lambda: number_of_rows(run, "train/loss") * 500 / steps)
    lines = [row(f"{steps:,} steps of a tiny model", code, seen, [share * steps for share in marks], "ms a step")]
    grid = [*words, "trainer.max_epochs=1", "trainer.log_every_n_steps=12", "-m", f"seed=range({jobs})", "sweep.name=s"]
    cells = folder / "sweep" / "outputs"
    code, seen = watched(grid, folder / "sweep", marks, lambda: len(list(cells.rglob("run.json"))) / jobs)
    return [
        *lines,
        row(f"{jobs} tiny jobs, one after another", code, seen, [share * jobs for share in marks], "ms a job"),
    ]


def row(title: str, code: int, seen: list[tuple[float, float, int]], work: list[float], unit: str) -> str:
    """One line of the table of the soak: from its first tenth to its end."""
    speeds = [
        1000 * (after[0] - before[0]) / (work[place + 1] - work[place])
        for place, (before, after) in enumerate(pairwise(seen))
    ]
    megabytes, handles = [f"{each[1]:.0f}" for each in seen], [str(each[2]) for each in seen]
    shown = [f"{speed:.2f}" for speed in speeds]
    return f"| {title} | {code} | {' '.join(megabytes)} | {' '.join(handles)} | {' '.join(shown)} {unit} |"


def page(outcomes, lines: list[str], seed: int) -> str:
    """The content of docs/reliability.md."""
    same = sum(not outcome.fault for outcome in outcomes)
    text = [
        "# Reliability: what was done to it, and what survived",
        "",
        f"Written by `make reliability` (`benchmarks/reliability.py`, seed {seed}); no number is typed by hand.",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, no GPU.",
        "",
        "## Kills",
        "",
        "A run is stopped once or twice, at events: a row of `metrics.csv`, a file that appears. Then it is resumed to",
        "its end and compared with a run that was left alone: weights, optimizer, schedules, rows of `metrics.csv`,",
        "`kl_per_dim.csv` and the metrics of the test, to the bit. INT must end with exit code 130, TERM with 143,",
        "and both with `interrupted` in run.json (or `finished`, if training had ended and pictures were drawn);",
        "no part of a file and no stack trace may be left, but that of DDP's other process when the first is killed.",
        f"Events: {', '.join(EVENTS)}.",
        "A run that ends before an event is seen is not stopped there: stops are as planned.",
        "",
        f"**{same} of {len(outcomes)} rounds survived.**",
        "",
        "| kind of run | rounds | survived |",
        "|---|---|---|",
    ]
    for kind in KINDS:
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        text.append(f"| {kind} | {len(of_kind)} | {sum(not outcome.fault for outcome in of_kind)} |")
    text += ["", "| event | signal | stops planned | in rounds that survived |", "|---|---|---|---|"]
    for name in EVENTS:
        for number in ("INT", "TERM", "KILL"):
            of = [outcome for outcome in outcomes for stop in outcome.stops if stop == f"{name} {number}"]
            text.append(f"| {name} | {number} | {len(of)} | {sum(not outcome.fault for outcome in of)} |")
    faults = [f"- {outcome.kind}, {', '.join(outcome.stops)}: {outcome.fault}" for outcome in outcomes if outcome.fault]
    text += ["", *(["What did not survive:", "", *faults, ""] if faults else [])]
    if lines:
        text += [
            "## Soak",
            "",
            "Each number was read after a tenth, four tenths, seven tenths and at the end of the work; times are of",
            "the three stretches between.",
            "",
            "| work | exit code | MB resident | open files | time |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    return "\n".join(text)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--only-rounds", action="store_true", help="no soak, no page; exit code 1 if a round differs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        outcomes = rounds(Path(place), given.rounds, given.seed, lambda line: print(line, flush=True))
        if given.only_rounds:
            sys.exit(int(any(outcome.fault for outcome in outcomes)))
        lines = soak(Path(place), given.steps, given.jobs)
    print(json.dumps(lines, indent=1))
    PAGE.write_text(page(outcomes, lines, given.seed))


if __name__ == "__main__":
    main()
