"""A command called from Python: its keyword arguments become the words of a command line, with the same checks."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from vae_exp.cli import explain
from vae_exp.config import CONF, ConfigError
from vae_exp.files import LogFile
from vae_exp.overrides import quoted
from vae_exp.resolvers import register_resolvers
from vae_exp.words import check_choices, check_words

__all__ = ["called", "words_of"]

NAMED_BY_USER = ("label", "data.source.kinds")  # keys whose value is a mapping, null if there is none

log = logging.getLogger("vae_exp")


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` of keyword arguments: `{"optimizer.lr": 1e-3}` or `{"optimizer": {"lr": 1e-3}}`, None as null.

    Raises:
        ConfigError: If a value is nothing that a config holds.
    """
    words = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and key not in NAMED_BY_USER:
            words += words_of({f"{key}.{name}": each for name, each in value.items()})
        elif key.startswith("~") and value is None:
            words.append(key)
        else:
            words.append(f"{key}={_written(key, value)}")
    return words


def _written(key: str, value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_written(key, each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_written(key, each) for each in value) + "]"
    if not isinstance(value, str | Path):
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of numpy's or torch's
            return _written(key, value.item())
        raise ConfigError(f"{key}: a {type(value).__name__} is no value of a config: give a number, a text or a list")
    word = quoted(value)
    is_text = word.startswith("'") or isinstance(OverridesParser.create().parse_override(f"k={word}").value(), str)
    return word if is_text else f"'{word}'"  # a text that looks like a number stays a text


@contextmanager
def called(config_name: str, settings: Mapping[str, Any], writes_log: bool = False) -> Iterator[DictConfig]:
    """The config of a command, as its command line would have it; within it Hydra's own config is that of the command.

    What the command logs is shown on stdout, unless the caller has set up logging.

    Arguments:
        config_name: Of the command: train, evaluate, generate, ...
        settings: See `words_of`.
        writes_log: Whether the run folder gets its train.log.

    Raises:
        ConfigError: For what the command line would refuse, with the same message.
    """
    register_resolvers()
    setup_globals()
    singleton, argv, hydra = HydraConfig.instance(), sys.argv, GlobalHydra.instance()
    outer, running = singleton.cfg, hydra.hydra  # of a command line within which this is called
    try:
        words = words_of(settings)
        sys.argv = [str(Path(__file__).with_name("__main__.py")), *words]  # what run.json records
        check_words(words)
        check_choices(words, config_name)
        hydra.clear()
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose(config_name, overrides=words, return_hydra_config=True)
            with open_dict(cfg):
                cfg.hydra.mode = RunMode.RUN
            singleton.set_config(cfg)
            folder = Path(cfg.hydra.run.dir).absolute()
            with read_write(cfg.hydra.runtime):
                cfg.hydra.runtime.output_dir = str(folder)
            singleton.set_config(cfg)
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            with _logging(folder if writes_log else None):
                yield own
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(explain(error, config_name)) from error
    finally:
        singleton.cfg, sys.argv, hydra.hydra = outer, argv, running


@contextmanager
def _logging(folder: Path | None) -> Iterator[None]:
    """Within it, what is logged is shown on stdout, and written to train.log of the folder."""
    handlers: list[logging.Handler] = []
    if not log.hasHandlers():
        handlers.append(logging.StreamHandler(sys.stdout))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = LogFile(folder / "train.log")
        file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
        handlers.append(file)
    level = log.level
    log.setLevel(level or logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
