"""What all commands share: Hydra is run, and errors are told in a few lines. Imports nothing heavy."""

import errno
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from vae_exp.config import CONF, FOLDERS, ConfigError, options
from vae_exp.files import FULL
from vae_exp.lock import LOCKS
from vae_exp.overrides import is_metric, nearest, override
from vae_exp.resolvers import register_resolvers
from vae_exp.words import check_choices, check_words, of_agent, options_first, with_own_folder_first, with_quotes

__all__ = [
    "exit_code",
    "exit_on_sigterm",
    "explain",
    "is_further_process",
    "job",
    "run_command",
]

READING = (errno.ENOENT, errno.EISDIR)
# What says which process of a run this is, by those who start several; 0 for the first.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def run_command(task: Callable[[DictConfig], Any], config_name: str) -> NoReturn:
    """Composes the config of a command, runs its task on it and ends the process with its exit code."""
    register_resolvers()

    def main() -> None:
        typed = sys.argv
        words = with_quotes(options_first(of_agent(typed[1:])))
        check_words(words)
        folder, sys.argv = with_own_folder_first([typed[0], *words])
        FOLDERS[:] = [Path(folder), *([] if folder == CONF else [Path(CONF)])]
        check_choices(words, config_name)
        errors: list[Exception] = []

        @wraps(task)
        def as_typed(cfg: DictConfig) -> None:
            sys.argv = typed  # what run.json records
            try:
                task(cfg)
            except Exception as error:  # Hydra would write the whole command line above it
                errors.append(error)

        warnings.filterwarnings("ignore", "provider=hydra.searchpath")  # `check_overrides` refuses what is missing
        with _folder_of_a_further_process(config_name):
            hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(as_typed)()
        if errors:
            raise errors[0]

    sys.exit(exit_code(main, config_name))


def exit_code(main: Callable[[], Any], config_name: str) -> int:
    """Runs a function and puts what a user can mend into a few lines on stderr.

    Returns:
        The exit code: 0, 2 after such an error, 130 after Ctrl-C. Any other error leaves with its stack trace, and
        SIGTERM with 143.
    """
    exit_on_sigterm()
    logging.raiseExceptions = False  # a log on a full disk would write a trace for each line
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves the report to us
    try:
        main()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if wants_trace:
            raise
        print(f"error: {explain(error, config_name)}", file=sys.stderr)  # noqa: T201
        return 2
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__  # of a log that cannot be opened
        if wants_trace or not isinstance(cause, OSError) or not (cause.filename or cause.errno in FULL):
            raise
        is_read = cause.errno in READING and not any(word.startswith("hydra.") for word in sys.argv[1:])
        is_new = config_name == "train" and not any(word.startswith("resume=") for word in sys.argv[1:])
        way_out = "\nThe run folder is another with hydra.run.dir=..." if is_new and not is_read else ""
        print(f"error: {cause.filename or 'a file'}: {cause.strerror}{way_out}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        if wants_trace:
            raise
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def exit_on_sigterm() -> None:
    """From here on SIGTERM ends the process as an exception does, with 143: what is half done is cleared away."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def is_further_process() -> bool:
    """Whether torchrun, SLURM or a user started this process besides the first one of a run."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RANKS)


@contextmanager
def _folder_of_a_further_process(config_name: str) -> Iterator[None]:
    """Within it, a further process of a run writes no run folder."""
    if config_name != "train" or not is_further_process():
        yield
        return
    with TemporaryDirectory() as folder:
        sys.argv += [f"hydra.run.dir={folder}", "hydra/job_logging=vae_exp"]
        yield


@contextmanager
def job() -> Iterator[None]:
    """Around a training: if it fails before it begins, the folder that Hydra made is removed."""
    try:
        yield
    except BaseException:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if not (folder / "config.yaml").exists():
            _remove_empty(folder)
        raise


def _remove_empty(folder: Path) -> None:
    """Removes the folder that Hydra made for a job of which nothing began, and the empty ones above it."""
    log_file = folder / "train.log"
    if log_file.exists() and not log_file.stat().st_size:
        for name in ("train.log", *LOCKS):
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # one that holds something
        while folder != Path.cwd():
            folder.rmdir()
            folder = folder.parent


def explain(error: BaseException, config_name: str) -> str:
    """An error of a command in a few lines that a user can act on."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        # Of a group that takes several options Hydra names none.
        known = error.options or list(options(group))
        return f"{group}={given}: no such option{nearest(given, known)}\n{group} is one of: {', '.join(known)}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given: {cause.full_key}=..."
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(cause, InterpolationResolutionError):
        reason = str(cause).splitlines()[0].rpartition("resolving interpolation: ")[2]
        return ": ".join([*(word for word in sys.argv[1:] if "${" in word), reason])
    key = getattr(cause, "full_key", None)
    if key:
        if config_name == "evaluate" and is_metric(key):
            return f"{key}: this metric is not asked for, so nothing reads its options: choose metrics=[...,{key}]"
        known = _known_keys(config_name)
        return f"{key}: no such key{nearest(key, known)}\nSee all keys with --cfg job, the groups with --help"
    return "\n".join(line.strip() for line in str(error).splitlines()[:5] if line.strip())


def _unreadable(error: OverrideParseException) -> str:
    """A word that is not in Hydra's grammar, and how it would be."""
    key, _, value = error.override.partition("=")
    lines = [line.strip() for line in str(error).splitlines() if error.override not in line]
    reason = next((f" ({line})" for line in lines if re.match(r"[a-z]+ [a-z]", line)), "")
    within = value.strip("'\"")
    way_out = f"\nA text with signs or blanks needs quotes: {override(key, within)}" if within else ""
    return f"{error.override}: cannot be read{reason}{way_out}"


def _known_keys(config_name: str) -> list[str]:
    """Groups and dotted keys of the config, with the groups that the command line chooses where they exist."""
    chosen = [arg for arg in sys.argv[1:] if arg.partition("=")[2] in options(arg.partition("=")[0])]
    own = f"hydra.searchpath=['file://{FOLDERS[0]}']"
    is_open = GlobalHydra.instance().is_initialized()  # true inside a sweep
    with nullcontext() if is_open else initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(config_name, overrides=chosen if is_open else [*chosen, own])
    return [*_keys(cfg), *(path.name for folder in FOLDERS for path in folder.iterdir() if path.is_dir())]


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        name = f"{prefix}{key!s}"
        child = node._get_node(key)
        keys += [
            name,
            *(_keys(child, f"{name}.") if isinstance(child, DictConfig) and not child._is_none() else []),
        ]
    return keys
