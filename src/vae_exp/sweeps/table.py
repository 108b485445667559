"""What a sweep says of itself: the table of its runs, what failed, what never began, and how to go on."""

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vae_exp.comparison.groups import sections
from vae_exp.comparison.read import read_runs
from vae_exp.comparison.table import as_text
from vae_exp.overrides import override
from vae_exp.runs.state import State

__all__ = ["lines"]

OTHERS = 40  # jobs that are not finished, named one by one


def lines(sweep: dict[str, Any], folder: Path) -> Iterator[str]:
    """What is printed of a sweep.

    Arguments:
        sweep: The content of its `sweep.json`.
        folder: Its folder.
    """
    jobs = sweep["jobs"]
    finished = list(dict.fromkeys(job["folder"] for job in jobs if job["state"] == State.FINISHED))
    if finished:
        runs, _ = read_runs(finished)
        varied = dict.fromkeys(key for job in jobs for key in job["varied"] if key not in ("seed", "data.fold"))
        known = [key for key in varied if any(key in run.config or key in run.record["choices"] for run in runs)]
        yield from as_text(sections(runs, known, None)[0])
        yield ""
    for num in sweep["front"]:
        words = " ".join(f"{key}={value}" for key, value in jobs[num]["varied"].items())
        yield f"{'best' if len(sweep['front']) == 1 else 'Pareto front':<15} job {num}: {words}"
    others = [job for job in jobs if job["state"] != State.FINISHED]
    for job in others[:OTHERS]:
        words = " ".join(f"{key}={value}" for key, value in job["varied"].items())
        state = "never begun" if job["state"] == State.NEW else job["state"]
        reason = " ".join(job["error"].split()) if job["error"] and job["state"] == State.FAILED else ""
        yield f"job {job['num']:<4} {state:<11} {words}{reason and ': '}{reason}"
    if len(others) > OTHERS:
        yield f"... and {len(others) - OTHERS} more, see sweep.json"
    counts = Counter(job["state"] for job in jobs)
    yield f"{len(jobs)} jobs: " + ", ".join(f"{number} {state}" for state, number in counts.items())
    again = shlex.join([*_program(sweep["command"]), *sweep["command"][1:]])
    if any(state not in (State.FINISHED, State.FAILED, State.PRUNED) for state in counts):
        yield f"go on           {again}"
    elif any(job["state"] == State.FAILED and job["folder"] for job in jobs):  # what is wrong at once stays so
        yield f"try again       {again} sweep.retry=true"
    if finished:
        yield f"compare         {shlex.join(_program(sweep['command']))} compare {override('run', folder)}"


def _program(command: list[str]) -> list[str]:
    """How the command was called."""
    return ["python", "-m", "vae_exp"] if command[0].endswith("__main__.py") else ["vae_exp"]
