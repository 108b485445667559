"""Launchers: where the jobs of a sweep run. Each of them runs `python -m vae_exp --job FOLDER`, or what it does."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from vae_exp.config import ConfigError
from vae_exp.files import appended
from vae_exp.records import whole_or
from vae_exp.saved import digest, read_config
from vae_exp.sweeps.sweep import LIFELINE

__all__ = ["Processes", "Ray", "Serial", "Slurm"]

log = logging.getLogger("vae_exp")


class Serial:
    """One job after another in the process of the sweep, which saves each of them the start of a process."""

    slots = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def batch(self) -> AbstractContextManager[None]:
        """Sends each job at once."""
        return nullcontext()

    def submit(self, folder: Path) -> Future[None]:
        """Trains the run of a folder, and returns when it has ended."""
        from vae_exp.sweeps.job import run_job  # torch is imported when there is something to train

        future: Future[None] = Future()
        ends = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning alone ends training, between two steps
        try:
            run_job(folder, written_in(folder))
        except ConfigError:
            pass  # it stands in run.json
        except SystemExit as error:  # by Lightning, 143 after SIGTERM
            if error.code == 143:
                raise
            raise KeyboardInterrupt from error
        except Exception:  # a fault of the code: the others go on
            with appended(folder / "train.log") as file:
                traceback.print_exc(file=file)
        finally:
            signal.signal(signal.SIGTERM, ends)
        future.set_result(None)
        return future


class Processes:
    """A process for each job, so many at a time; each has its share of the cores, and GPUs of its own.

    Arguments:
        jobs: How many run at a time; null: one for each GPU, or one without a GPU.
    """

    def __init__(self, jobs: int | None = None) -> None:
        gpus = visible_gpus()
        if jobs is not None and jobs < 1:
            raise ConfigError(f"launcher.jobs={jobs}: at least 1")
        self.slots = jobs or max(1, len(gpus))
        self._gpus: SimpleQueue[str] = SimpleQueue()
        for slot in range(self.slots):
            self._gpus.put(gpus[slot % len(gpus)] if gpus else "")
        self._threads = ThreadPoolExecutor(self.slots)

    def __enter__(self) -> Self:
        self._lifeline, self._end = os.pipe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Waits until no job is left; after Ctrl-C each of them ends between two steps, with its last checkpoint."""
        if kind is None:
            self._threads.shutdown()
        os.close(self._end)
        self._threads.shutdown(cancel_futures=True)
        os.close(self._lifeline)

    def batch(self) -> AbstractContextManager[None]:
        """Sends each job at once."""
        return nullcontext()

    def submit(self, folder: Path) -> Future[None]:
        """Starts a process that trains the run of a folder; what it prints goes into `train.log` of the folder."""
        return self._threads.submit(self._run, folder, ["--job", str(folder.resolve()), written_in(folder)])

    def _run(self, folder: Path, words: list[str]) -> None:
        gpu = self._gpus.get()
        threads = max(1, (os.cpu_count() or 1) // int(self.slots))
        environ = {"OMP_NUM_THREADS": str(threads), **os.environ, LIFELINE: str(self._lifeline)}
        if gpu:
            environ["CUDA_VISIBLE_DEVICES"] = gpu
        with appended(folder / "train.log", "ab") as file:
            subprocess.run(  # noqa: S603
                [sys.executable, "-m", "vae_exp", *words],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                pass_fds=[self._lifeline],
                start_new_session=True,  # Ctrl-C reaches the sweep alone
                check=False,
            )
        self._gpus.put(gpu)


class Slurm:
    """An array of SLURM jobs, by submitit; one that is preempted or out of time is queued again and goes on.

    Arguments:
        jobs: How many may run at a time; null: as many as SLURM starts.
        detach: Whether to leave as soon as the jobs are queued; `vae_exp sweep NAME` shows where they stand.
        folder: Where submitit keeps its scripts and what the jobs print.
        cluster: slurm; or local, for processes of this machine.
        resources: Further arguments of submitit: timeout_min, cpus_per_task, mem_gb, slurm_partition, ...
    """

    def __init__(self, jobs: int | None, detach: bool, folder: str, cluster: str, **resources: Any) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("launcher=slurm needs submitit: pip install '.[slurm]'") from error
        self.slots, self.detach = jobs or inf, detach
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        most = {"slurm_array_parallelism": jobs} if jobs else {}
        self._executor.update_parameters(name="vae_exp", **most, **resources)
        self._jobs: dict[Future[None], Any] = {}
        self._has_ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """After Ctrl-C, takes back what is queued or runs; it goes on with the next command."""
        self._has_ended.set()
        if kind is KeyboardInterrupt:
            for job in self._jobs.values():
                job.cancel()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Sends the jobs as one array."""
        before = len(self._jobs)
        with self._executor.batch(allow_implicit_submissions=True):
            yield
        if self.detach and len(self._jobs) > before:
            log.info("%d jobs are queued", len(self._jobs))
            raise SystemExit(0)

    def submit(self, folder: Path) -> Future[None]:
        """Queues the run of a folder."""
        future: Future[None] = Future()
        self._jobs[future] = self._executor.submit(OnCluster(folder.resolve(), written_in(folder)))
        return future

    def _watch(self) -> None:
        while not self._has_ended.wait(1):
            for future, job in list(self._jobs.items()):
                if not future.done() and job.done():
                    future.set_result(None)


class OnCluster:
    """What a job of SLURM does; submitit calls `checkpoint` when its time is over."""

    def __init__(self, folder: Path, wrote: str) -> None:
        self.folder, self.wrote = folder, wrote

    def __call__(self) -> None:
        run_apart(self.folder, self.wrote)

    def checkpoint(self) -> Any:
        """The same again: the run goes on from its last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(OnCluster(self.folder, self.wrote))


class Ray:
    """A task of Ray for each job, on this machine or on a running cluster whose nodes share the folder of the cells.

    A job whose node is lost goes on elsewhere, from its last checkpoint.

    Arguments:
        jobs: How many are handed to Ray at a time; null: all.
        cpus: Cores of each job.
        gpus: GPUs of each job.
        address: Of a running cluster, or auto; null: one that lives as long as the sweep.
    """

    def __init__(self, jobs: int | None, cpus: float, gpus: float, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("launcher=ray needs ray: pip install '.[ray]'") from error
        self.slots, self._address = jobs or inf, address
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(run_apart)

    def __enter__(self) -> Self:
        import ray

        ray.init(self._address, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def batch(self) -> AbstractContextManager[None]:
        """Sends each job at once."""
        return nullcontext()

    def submit(self, folder: Path) -> Future[None]:
        """Hands the run of a folder to Ray."""
        return self._task.remote(folder.resolve(), written_in(folder)).future()


def run_apart(folder: Path, wrote: str) -> None:
    """Trains the run of a folder in a process of its own; how it ended stands in the folder."""
    with appended(folder / "train.log", "ab") as file:
        line = [sys.executable, "-m", "vae_exp", "--job", str(folder), wrote]
        subprocess.run(line, stdout=subprocess.DEVNULL, stderr=file, check=False)  # noqa: S603


def written_in(folder: Path) -> str:
    """The digest of the config that the sweep wrote into a folder; empty if there is none, which the job reports."""
    cfg = whole_or(None, read_config, folder / "config.yaml")
    return "" if cfg is None else digest(cfg)


def visible_gpus() -> list[str]:
    """The names by which a process can be given one NVIDIA GPU each, without an import of torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)  # noqa: S607
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
