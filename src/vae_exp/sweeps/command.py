"""The work of `python -m vae_exp -m ...`: plans the jobs of a sweep, trains them and prints the table."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import ConfigError
from vae_exp.records import read_json
from vae_exp.runs.state import State
from vae_exp.sweeps.plan import Planner, grid_of
from vae_exp.sweeps.sweep import Sweep
from vae_exp.sweeps.table import lines

__all__ = ["run_sweep"]

log = logging.getLogger("vae_exp")


def run_sweep(loader: ConfigLoader, config: DictConfig, words: list[str]) -> NoReturn:
    """Runs the sweep of a command line, and ends the process with its exit code.

    The code is 0 if every job is finished, 130 after Ctrl-C, 143 after SIGTERM, else 2.

    Raises:
        ConfigError: If the sweep itself is wrong; what is wrong with one job is told of that job.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout, force=True)
    signal.signal(signal.SIGTERM, _end)
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise ConfigError(
            "-m is one process, but WORLD_SIZE says that torchrun or a script started several: start it by itself.\n"
            "trainer=ddp trainer.devices=N starts the processes of each run"
        )
    if any(word.startswith("hydra.sweep.subdir") for word in config.hydra.overrides.hydra):
        raise ConfigError("hydra.sweep.subdir: the runs of a sweep lie in sweep.cells, leave it out")
    options = config.sweep
    fixed, several = grid_of(words, OmegaConf.to_container(options.grid))  # type: ignore[arg-type]
    planner = Planner(loader, config, fixed)
    figures = _made(options, "figures", "sweep.figures")
    search, launcher = _made(options, "search", "sweep.search"), _made(config, "launcher", "launcher")
    sweep = Sweep(
        planner.folder,
        Path(options.cells),
        grid={word.get_key_element(): (word.input_line or "").partition("=")[2] for word in several},
        retry=options.retry,
        stop_at_first_failure=options.stop_at_first_failure,
    )
    jobs = search.jobs(sweep, planner, several)
    sweep.write()
    code = 0
    try:
        sweep.run(jobs, launcher, lambda job: search.tell(sweep, job))
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sweep.front = search.front()
        # What is printed comes from the folders, not from the memory of this process.
        sweep.write()
        print("", *lines(read_json(sweep.folder / "sweep.json"), sweep.folder), sep="\n")  # noqa: T201
    if not code:
        _draw(figures, sweep)
        if options.expected:
            print(f"expected        {options.expected}")  # noqa: T201
    states = {sweep.state(job) for job in sweep.jobs}
    sys.exit(code or (0 if states <= {State.FINISHED, State.PRUNED} else 2))


def _draw(figures: dict[str, Any], sweep: Sweep) -> None:
    """Draws the finished jobs, into the folder of the sweep."""
    jobs = [(job.varied, sweep.folder_of(job)) for job in sweep.jobs if sweep.state(job) is State.FINISHED]
    for name, figure in figures.items() if jobs else ():
        try:
            for file in figure(jobs, sweep.folder / f"{name}.png"):
                log.info("figure          %s", file)
        except ConfigError as error:
            log.warning("sweep.figures.%s: there is no figure: %s", name, error)


def _made(config: DictConfig, name: str, key: str) -> Any:
    try:
        return instantiate(config[name], _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from error
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
