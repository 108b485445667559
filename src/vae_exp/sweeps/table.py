"""The table of a sweep: best first, over its seeds, with what failed and what never began."""

import shlex
from collections import Counter
from collections.abc import Iterator
from math import sqrt
from statistics import fmean, stdev
from typing import Any

__all__ = ["lines"]

SHOWN = ("test/elbo", "test/recon", "test/kl", "test/error")


def lines(sweep: dict[str, Any]) -> list[str]:
    """What is printed of the content of a `sweep.json`."""
    jobs = sweep["jobs"]
    said: list[str] = []
    done = [job for job in jobs if job["state"] == "finished"]
    for bound, of_bound in _apart(done):
        best = f"best/{of_bound[0]['monitor']}"
        names = [name for name in (best, *SHOWN) if any(name in (job["metrics"] or {}) for job in of_bound)]
        rows = []
        for words, of_point in _points(of_bound):
            numbers = {name: [job["metrics"][name] for job in of_point if name in job["metrics"]] for name in names}
            rows.append((words, len(of_point), {name: each for name, each in numbers.items() if each}))
        sign = -1 if of_bound[0]["mode"] == "max" else 1
        rows.sort(key=lambda row: sign * fmean(row[2].get(best) or row[2].get("test/elbo") or [float("inf") * sign]))
        said += ["", *([bound] if bound else []), *_table(rows, names)]
    said += _others(jobs)
    counts = Counter(job["state"] for job in jobs)
    said += ["", f"{len(jobs)} jobs: " + ", ".join(f"{number} {state}" for state, number in counts.items())]
    if any(state not in ("finished", "failed") for state in counts):
        said.append(f"go on with: {shlex.join(_python(sweep['command']))}")
    elif counts["failed"]:
        said.append(f"failed jobs are tried again with: {shlex.join([*_python(sweep['command']), 'sweep.retry=true'])}")
    return said


def _apart(jobs: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The jobs whose numbers can be compared, by what they bound and the data that they are scored on."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        groups.setdefault(str([job[key] for key in ("bound", "data", "monitor")]), []).append(job)
    for of_bound in groups.values():
        bound = of_bound[0]["bound"] or {}
        title = f"{bound.get('of')} of {bound.get('representation')}, a {bound.get('kind')}"
        yield (f"{title}: not comparable with the other tables" if len(groups) > 1 else ""), of_bound


def _points(jobs: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The jobs of each point of the grid, which differ in their seed alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        words = [f"{key}={value}" for key, value in job["varied"].items() if key != "seed"]
        groups.setdefault(" ".join(words), []).append(job)
    yield from groups.items()


def _table(rows: list[tuple[str, int, dict[str, list[float]]]], names: list[str]) -> list[str]:
    width = max(len("what differs"), *(len(words) for words, _, _ in rows))
    head = f"{'what differs':<{width}}  runs  " + "  ".join(f"{name:>18}" for name in names)
    table = [head]
    for words, number, values in rows:
        cells = [f"{_mean(values[name]) if name in values else '':>18}" for name in names]
        table.append(f"{words:<{width}}  {number:>4}  " + "  ".join(cells))
    return table


def _mean(values: list[float]) -> str:
    """The mean, and its standard error over the runs."""
    spread = f" ± {stdev(values) / sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _others(jobs: list[dict[str, Any]]) -> list[str]:
    said = []
    for job in jobs:
        if job["state"] != "finished":
            reason = f": {' '.join(job['error'].split())}" if job["error"] and job["state"] == "failed" else ""
            words = " ".join(f"{key}={value}" for key, value in job["varied"].items())
            state = "never begun" if job["state"] == "new" else job["state"]
            said.append(f"{state:<12} job {job['num']} ({words}){reason}")
    return ["", *said] if said else []


def _python(command: list[str]) -> list[str]:
    """The command as a user types it."""
    program = ["python", "-m", "vae_exp"] if command[0].endswith("__main__.py") else ["vae_exp"]
    return [*program, *command[1:]]
