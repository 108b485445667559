"""The plan of a sweep: from the words of a command line to jobs, each with its config and its cell."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vae_exp.cli import explain
from vae_exp.config import ConfigError
from vae_exp.overrides import OF_SWEEPS, check_overrides, choices
from vae_exp.sweeps.cell import identity

__all__ = ["Composer", "Job", "Planner", "grid_of", "words_of"]

# What takes longer than to train a small model, and is left out unless the command asks for it.
SLOW = ("pictures", "curves", "explorer")


@dataclass
class Job:
    """A point of a sweep. Two jobs may be one cell, as beta=1 and beta=1.0.

    Attributes:
        num: Its number in the sweep.
        overrides: Its `key=value`, as one would type them.
        varied: Those of the keys that the sweep varies.
        choices: The chosen option of each group.
        cell: The name of its cell; empty if its config is wrong.
        cfg: Its resolved config.
        error: What is wrong with the config.
    """

    num: int
    overrides: list[str]
    varied: dict[str, str]
    choices: dict[str, str] = field(default_factory=dict)
    cell: str = ""
    cfg: dict[str, Any] = field(default_factory=dict, repr=False)
    error: str = ""

    @property
    def title(self) -> str:
        """What sets it apart from the other jobs."""
        return " ".join(f"{key}={value}" for key, value in self.varied.items())


def grid_of(words: list[str], ready: dict[str, Any] | None = None) -> tuple[list[Override], list[Override]]:
    """The words that every job shares, and those that hold several values.

    Arguments:
        words: Of the command line.
        ready: Several values for each of some keys, as Hydra writes them: `{"seed": "range(0,3)"}`. A key that the
            command line sets keeps what it has there.
    """
    parser = OverridesParser.create()
    typed = parser.parse_overrides(words)
    keys = [word.get_key_element() for word in typed]
    typed += parser.parse_overrides([f"{key}={values}" for key, values in (ready or {}).items() if key not in keys])
    typed = [word for word in typed if word.key_or_group.partition(".")[0] not in OF_SWEEPS]
    several = [word for word in typed if word.is_sweep_override()]
    return [word for word in typed if not word.is_sweep_override()], several


def words_of(several: list[Override]) -> list[dict[str, str]]:
    """Every combination of the values, the last word varying fastest: its words by key."""
    values = [[f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()] for word in several]
    keys = [word.get_key_element() for word in several]
    return [dict(zip(keys, point, strict=True)) for point in product(*values)]


class Composer:
    """Composes configs as Hydra does. Files are read once for all command lines that choose the same options.

    Arguments:
        loader: Hydra's.
        config_name: Of the file that composes the others.
        words: That hold for every config, such as Hydra's own.
    """

    def __init__(self, loader: ConfigLoader, config_name: str, words: Sequence[str] = ()) -> None:
        self._is_group = cache(lambda key: bool(loader.get_group_options(key)))
        self._read = cache(lambda *groups: loader.load_configuration(config_name, [*words, *groups], RunMode.RUN))

    def compose(self, words: Sequence[str]) -> DictConfig:
        """The config of a command line, unresolved, with the node `hydra`."""
        overrides = OverridesParser.create().parse_overrides(list(words))
        # Hydra, too, first reads the files of the chosen options, and then sets values.
        chosen = [word for word in overrides if word.is_hydra_override() or self._chooses(word)]
        cfg = deepcopy(self._read(*(word.input_line for word in chosen)))
        ConfigLoaderImpl._apply_overrides_to_config([word for word in overrides if word not in chosen], cfg)
        cfg.hydra.overrides.task = [word.input_line for word in overrides if not word.is_hydra_override()]
        return cfg

    def _chooses(self, word: Override) -> bool:
        """Whether a word chooses an option of a group."""
        return self._is_group(word.key_or_group) and not isinstance(word.value(), dict)


class Planner:
    """Makes jobs.

    Arguments:
        loader: Hydra's.
        config: That of the sweep.
        fixed: The words that every job shares.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig, fixed: list[Override]) -> None:
        HydraConfig.instance().set_config(config)  # what names the folder of the sweep asks for it
        self.folder = Path(config.hydra.sweep.dir)  # of the sweep; its name depends on HydraConfig, which each job sets
        self.fixed = fixed
        self._composer = Composer(loader, config.hydra.job.config_name, list(config.hydra.overrides.hydra))

    def job(self, num: int, varied: dict[str, str]) -> Job:
        """The job with the words of `varied`; a wrong config is written into the job."""
        words = [*(word.input_line or "" for word in self.fixed), *varied.values()]
        job = Job(num, words, varied={key: word.partition("=")[2] for key, word in varied.items()})
        try:
            self._compose(job)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            job.error = explain(error, "train")
        return job

    def _compose(self, job: Job) -> None:
        cfg = self._composer.compose(job.overrides)
        cfg.hydra.mode, cfg.hydra.sweep.dir = RunMode.MULTIRUN, str(self.folder)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            hydra = cfg.pop("hydra")
        check_overrides(cfg, "train")
        if cfg.resume:
            raise ConfigError("resume continues one run: leave out -m. A sweep goes on by itself when it is run again")
        keys = [word.lstrip("+~").partition("=")[0] for word in job.overrides]
        for name in SLOW:
            if name in cfg.callbacks and not any(key.startswith(f"callbacks.{name}") for key in keys):
                cfg.callbacks[name] = None
        if "report" not in keys:
            cfg.report = False
        if not any(key.startswith("draw") for key in keys):
            cfg.draw = {}
        resolved = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(resolved, dict)
        job.cfg = {str(key): value for key, value in resolved.items() if key not in OF_SWEEPS}
        job.cfg["data"]["root"] = str(Path(job.cfg["data"]["root"]).resolve())
        job.choices = choices(hydra)
        job.cell = identity(job.cfg)
