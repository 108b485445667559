"""Launchers: where the jobs of a sweep run."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from vae_exp.config import ConfigError

__all__ = ["Processes", "Serial"]

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
        try:
            run_job(folder)
        except ConfigError:
            pass  # it stands in run.json
        except SystemExit as error:  # by Lightning, 143 after SIGTERM
            if error.code == 143:
                raise
            raise KeyboardInterrupt from error
        except Exception:
            log.exception("%s", folder)
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
        self._running: set[subprocess.Popen[bytes]] = set()
        self._threads = ThreadPoolExecutor(self.slots)

    def __enter__(self) -> Self:
        self._lifeline, self._end = os.pipe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Waits until no job is left; after Ctrl-C, those that run save their last checkpoint first."""
        if kind is not None:
            for process in list(self._running):
                process.send_signal(signal.SIGINT)
        self._threads.shutdown(cancel_futures=kind is not None)
        os.close(self._end)
        os.close(self._lifeline)

    def batch(self) -> AbstractContextManager[None]:
        """Sends each job at once."""
        return nullcontext()

    def submit(self, folder: Path) -> Future[None]:
        """Starts a process that trains the run of a folder; what it prints goes into `train.log` of the folder."""
        return self._threads.submit(self._run, folder)

    def _run(self, folder: Path) -> None:
        gpu = self._gpus.get()
        threads = max(1, (os.cpu_count() or 1) // int(self.slots))
        environ = {"OMP_NUM_THREADS": str(threads), **os.environ, "VAE_EXP_LIFELINE": str(self._lifeline)}
        if gpu:
            environ["CUDA_VISIBLE_DEVICES"] = gpu
        with (folder / "train.log").open("ab") as file:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "vae_exp", "--job", str(folder.resolve())],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                pass_fds=[self._lifeline],
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes it on once
            )
            self._running.add(process)
            process.wait()
            self._running.remove(process)
        self._gpus.put(gpu)


def visible_gpus() -> list[str]:
    """The names by which a process can be given one NVIDIA GPU each, without an import of torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)  # noqa: S607
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
