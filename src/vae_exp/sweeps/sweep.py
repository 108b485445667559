"""A sweep: its jobs, each trained once, and `sweep.json`, which says where each stands."""

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.lock import locked
from vae_exp.records import DamagedError, read_json, read_record
from vae_exp.runs.folder import write_json
from vae_exp.runs.state import State, state_of
from vae_exp.sweeps.plan import Job

__all__ = ["LIFELINE", "Launcher", "Sweep", "read_sweep"]

LIFELINE = "VAE_EXP_LIFELINE"  # for a job: the number of an open pipe whose other end the sweep holds

# What `sweep.json` has.
OF_SWEEP = {"command", "grid", "front", "jobs"}
OF_JOB = {"num", "varied", "overrides", "choices", "cell", "folder", "state", "error"}

log = logging.getLogger("vae_exp")


class Launcher(Protocol):
    """Where jobs run. Within it, as a context manager, it takes jobs; at its end none of its processes is left."""

    slots: float  # how many jobs it takes at a time

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> object: ...

    def batch(self) -> AbstractContextManager[object]:
        """Within it, jobs may be collected before they are sent on."""

    def submit(self, folder: Path) -> Future[None]:
        """Trains the run of a folder; how it ended stands in the folder, not in the result."""


class Sweep:
    """The jobs of one command.

    Arguments:
        folder: Of the sweep: `sweep.json`, and a link to the run of each job.
        cells: The folder of the runs, which sweeps share.
        grid: What is varied, by key, as it was typed.
        retry: Whether to train again what failed for its config or its numbers.
        stop_at_first_failure: Whether to begin no further job after one has failed.
    """

    def __init__(
        self, folder: Path, cells: Path, grid: dict[str, str], retry: bool, stop_at_first_failure: bool
    ) -> None:
        self.folder, self.cells, self.grid = folder, cells, grid
        self.retry, self.stop_at_first_failure = retry, stop_at_first_failure
        self.jobs: list[Job] = []
        self.front: list[int] = []  # numbers of the jobs that a search found best
        self._entries: dict[int, dict[str, Any]] = {}
        self._began: dict[str, int] = {}  # how often this command began each cell

    def folder_of(self, job: Job) -> Path:
        """The run folder of a job."""
        return self.cells / job.cell

    def state(self, job: Job) -> State:
        """Where a job stands."""
        return State.FAILED if job.error else state_of(self.folder_of(job))

    def is_settled(self, job: Job) -> bool:
        """Whether nothing is left to do for a job."""
        state = self.state(job)
        return state is State.FINISHED or (state is State.FAILED and not self._is_tried_again(job))

    def _is_tried_again(self, job: Job) -> bool:
        return self.retry and not job.error and job.cell not in self._began

    def run(self, jobs: Iterator[Job], launcher: Launcher, tell: Callable[[Job], None] = lambda job: None) -> None:
        """Trains what is not settled, until there is no further job.

        Arguments:
            jobs: The next job, each time that the launcher has room for one.
            launcher: Where they run.
            tell: Called with each job when it has ended.
        """
        running: dict[Future[None], Job] = {}
        held: deque[Job] = deque()  # cells that other sweeps are training

        with launcher:
            while True:
                with launcher.batch():
                    while len(running) < launcher.slots and (job := self._next(jobs, held, any_left=bool(running))):
                        running[self._begin(job, launcher)] = job
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    job = running.pop(future)
                    if error := future.exception():
                        log.warning("job %d: %s", job.num, error)
                    if self._was_killed(job):
                        log.warning("job %d was killed and is tried once more", job.num)
                        running[self._begin(job, launcher)] = job
                        continue
                    self._say(job)
                    tell(job)
                    self.write(job)
                    if self.stop_at_first_failure and self.state(job) is State.FAILED:
                        jobs, held = iter(()), deque()

    def _next(self, jobs: Iterator[Job], held: deque[Job], any_left: bool) -> Job | None:
        """The next job that nobody trains; one that another sweep trains comes last, and is waited for."""
        for job in jobs:
            if self.state(job) is not State.RUNNING:
                return job
            held.append(job)
        return held.popleft() if held and not any_left else None

    def _begin(self, job: Job, launcher: Launcher) -> Future[None]:
        folder = self.folder_of(job)
        if self.is_settled(job):
            done: Future[None] = Future()
            done.set_result(None)
            return done
        self._began[job.cell] = self._began.get(job.cell, 0) + 1
        with locked(folder, wait=False) as is_mine:
            if is_mine:  # else another sweep has written the same config
                with written(folder / "config.yaml") as file:
                    OmegaConf.save(OmegaConf.create(job.cfg), file)
                record = {"status": "new", **read_record(folder)}
                if self.state(job) is State.FAILED:  # asked to be tried again, from the beginning
                    record |= {"status": "new", "cause": None, "error": None}
                about = {"choices": job.choices, "overrides": job.overrides, "cell": job.cell}
                write_json(folder / "run.json", record | about | {"sweep": self.folder.name})
        self._link(job)
        log.info("job %d: %s", job.num, job.title)
        return launcher.submit(folder)

    def _was_killed(self, job: Job) -> bool:
        return self.state(job) in (State.NEW, State.CUT_OFF) and self._began.get(job.cell) == 1

    def _link(self, job: Job) -> None:
        link = self.folder / str(job.num)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(self.folder_of(job), self.folder))

    def _say(self, job: Job) -> None:
        """One line on the end of a job."""
        record, state = read_record(self.folder_of(job)), self.state(job)
        if state is State.FINISHED:
            best = f"best/{job.cfg['monitor']}"
            log.info("job %d: finished, %s %.2f", job.num, best, record.get("metrics", {}).get(best, float("nan")))
        elif state is State.PRUNED:
            log.info("job %d: pruned after %s epochs", job.num, record.get("epochs"))
        else:
            log.error("job %d: %s: %s", job.num, state, record.get("error", "it left no word"))

    def write(self, *ended: Job) -> None:
        """Writes `sweep.json`: every number in it comes from the folders of the runs.

        Arguments:
            ended: The jobs whose folders are read again, besides those that were never read; all if none is given.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for job in self.jobs:
            if not ended or job in ended or job.num not in self._entries:
                self._entries[job.num] = self._entry(job)
        content = {
            "command": sys.argv,
            "grid": self.grid,
            "front": self.front,
            "jobs": [self._entries[job.num] for job in self.jobs],
        }
        write_json(self.folder / "sweep.json", content)

    def _entry(self, job: Job) -> dict[str, Any]:
        return {
            "num": job.num,
            "varied": job.varied,
            "overrides": job.overrides,
            "choices": job.choices,
            "cell": job.cell,
            "folder": str(self.folder_of(job)) if job.cell else None,
            **_outcome(self.folder_of(job) if job.cell else None, job.error),
        }


def _outcome(folder: Path | None, error: str) -> dict[str, Any]:
    """What the folder of a run says now."""
    record = read_record(folder) if folder else {}
    numbers = {key: record.get(key) for key in ("metrics", "epochs", "steps", "wall_seconds")}
    state = state_of(folder) if folder else State.FAILED
    return {"state": state, "error": error or record.get("error"), **numbers}


def read_sweep(folder: Path) -> dict[str, Any]:
    """The content of a `sweep.json`, with what its runs say now.

    Raises:
        ConfigError: If there is none.
    """
    path = folder / "sweep.json"
    content = read_json(path, {"command": list, "front": list, "jobs": list})
    if not content:
        raise ConfigError(f"{folder} has no sweep.json: it is no folder of a sweep. Sweeps are under outputs/sweeps/")
    if not content.keys() >= OF_SWEEP or not all(
        isinstance(job, dict) and job.keys() >= OF_JOB for job in content["jobs"]
    ):
        raise DamagedError(f"{path} is damaged: it is no record of a sweep; the same command as before writes it again")
    for job in content["jobs"]:
        job |= _outcome(Path(job["folder"]) if job["folder"] else None, "" if job["folder"] else job["error"])
    return content
