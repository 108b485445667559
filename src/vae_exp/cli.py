"""The command line: its help, checks of what was typed, errors in a few lines. Imports nothing heavy."""

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from itertools import pairwise
from pathlib import Path
from types import FrameType, NoneType
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from vae_exp.config import CONF, FOLDERS, ConfigError, options
from vae_exp.lock import LOCKS
from vae_exp.overrides import is_metric, nearest, quoted
from vae_exp.resolvers import register_resolvers

__all__ = [
    "exit_code",
    "exit_on_sigterm",
    "explain",
    "job",
    "run_command",
    "with_run",
]

COMMANDS = ("train", "evaluate", "generate", "report", "export", "compare", "sync", "sweep")
# Of Hydra's options, those that a word follows.
OPTIONS_WITH_VALUE = (
    "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--info", "-i", "--package",
    "-p", "--experimental-rerun",
)  # fmt: skip
OF_HYDRA = ("--cfg", "--info", "--package", "--experimental-rerun", "--run", "--multirun", "--resolve")
READING = (errno.ENOENT, errno.EISDIR)

log = logging.getLogger("vae_exp")
failed_jobs: list[str] = []  # of a sweep, for its last words


def run_command(task: Callable[[DictConfig], Any], config_name: str) -> NoReturn:
    """Composes the config of a command, runs its task on it and ends the process with its exit code."""
    register_resolvers()

    def main() -> None:
        typed = sys.argv
        given = _of_agent(typed)
        _check_words(given[1:])
        folder, sys.argv = _with_own_folder_first(given)
        FOLDERS[:] = [Path(folder), *([] if folder == CONF else [Path(CONF)])]
        _check_choices(given[1:], config_name)

        @wraps(task)
        def as_typed(cfg: DictConfig) -> Any:
            sys.argv = typed  # what run.json records
            return task(cfg)

        hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(as_typed)()

    sys.exit(exit_code(main, config_name))


def with_run(words: list[str]) -> list[str]:
    """The command line with the words that name no key as `run=[...]`: folders, or patterns for several."""
    bare = [
        word
        for before, word in pairwise(["", *words])
        if "=" not in word and not word.startswith(("-", "~")) and before not in OPTIONS_WITH_VALUE
    ]
    run = [f"run=[{','.join(map(quoted, bare))}]"] if bare else []
    return [word for word in words if word not in bare] + run


def _of_agent(words: list[str]) -> list[str]:
    """The command line with `--latent_dim=4`, as an agent of a W&B sweep writes it, as `latent_dim=4`.

    Options of Hydra's stay: those without a value, those with a hyphen in their name and those of `OF_HYDRA`.
    """
    keys = re.compile(r"--([A-Za-z_][\w./@]*)=")
    return [word[2:] if keys.match(word) and word.partition("=")[0] not in OF_HYDRA else word for word in words]


def _check_words(words: list[str]) -> None:
    """Refuses a word that is neither an option of Hydra's nor key=value, such as a misspelled command."""
    for before, word in pairwise(["", *words]):
        if "=" not in word and not word.startswith(("-", "~")) and before not in OPTIONS_WITH_VALUE:
            raise ConfigError(
                f"{word}: neither a command nor key=value{nearest(word, COMMANDS)}\n"
                f"The commands are {', '.join(COMMANDS)}, one at the beginning: vae_exp {COMMANDS[1]} run=..."
            )


def _check_choices(words: list[str], config_name: str) -> None:
    """Refuses `group=null`, and whatever else is no name of an option, which Hydra answers with a stack trace."""
    for word in words:
        group = word.lstrip("+").partition("=")[0].partition("@")[0]
        if "=" in word and (known := options(group)):
            with suppress(OverrideParseException):  # Hydra says what is wrong with it
                value = OverridesParser.create().parse_override(word).value()
                if not _are_names(value):
                    without = f"  - {group}: null" in (Path(CONF) / f"{config_name}.yaml").read_text()
                    way_out = f"; for none of them leave {group} out" if without else ""
                    hint = "; did you mean none?" if "none" in known else ""
                    raise ConfigError(f"{word}: no such option{hint}\n{group} is one of: {', '.join(known)}{way_out}")


def _are_names(value: Any) -> bool:
    """Whether a value is the name of an option, or a list or a sweep of names."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    return all(map(_are_names, value)) if isinstance(value, list) else not isinstance(value, NoneType | int | float)


def _with_own_folder_first(argv: list[str]) -> tuple[str, list[str]]:
    """The folder that Hydra is to search first, and the command line that names the second.

    Hydra searches the folder of `--config-dir` last. The two change places, so that of two files of one name the user's
    is read.

    Raises:
        ConfigError: If there is no such folder.
    """
    argv = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--config-dir=") else [arg])]
    for place, arg in enumerate(argv[:-1], start=1):
        if arg in ("--config-dir", "-cd"):
            if not Path(argv[place]).is_dir():
                raise ConfigError(f"{arg} {argv[place]}: there is no such folder")
            return str(Path(argv[place]).absolute()), [*argv[:place], CONF, *argv[place + 1 :]]
    return CONF, argv


def exit_code(main: Callable[[], Any], config_name: str) -> int:
    """Runs a function and puts what a user can mend into a few lines on stderr.

    Returns:
        The exit code: 0, 2 after such an error, 130 after Ctrl-C. Any other error leaves with its stack trace, and
        SIGTERM with 143.
    """
    exit_on_sigterm()
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves the report to us
    try:
        main()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if wants_trace:
            raise
        print(f"error: {explain(error, config_name)}", file=sys.stderr)  # noqa: T201
        return 2
    except OSError as error:
        if wants_trace or not error.filename:
            raise
        is_read = error.errno in READING and not any(word.startswith("hydra.") for word in sys.argv[1:])
        way_out = "" if is_read else "\nThe run folder is another with hydra.run.dir=..."
        print(f"error: {error.filename}: {error.strerror}{way_out}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        if wants_trace:
            raise
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        if len(failed_jobs) > 1:
            print("\n".join(["all failed jobs:", *failed_jobs]), file=sys.stderr)  # noqa: T201
    return 0


def exit_on_sigterm() -> None:
    """From here on SIGTERM ends the process as an exception does, with 143: what is half done is cleared away."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def job() -> Iterator[None]:
    """Around one job: what fails is written down at once, for a sweep goes on with the others."""
    try:
        yield
    except BaseException as error:
        hydra, folder = HydraConfig.get(), Path(HydraConfig.get().runtime.output_dir)
        if hydra.mode == RunMode.MULTIRUN and isinstance(error, Exception):
            failed_jobs.append(f"{folder} ({hydra.job.override_dirname}): {explain(error, str(hydra.job.config_name))}")
            log.error("error: job %s", failed_jobs[-1])
        elif not _is_chosen(hydra) and (folder / "train.log").exists() and not (folder / "config.yaml").exists():
            # The folder is one that Hydra made for this job and nothing began: it would only be in the way.
            for name in ("train.log", *LOCKS):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        raise


def _is_chosen(hydra: HydraConf) -> bool:
    """Whether the user chose the run folder, which may then hold what is theirs."""
    return any(override.startswith("hydra.run") for override in hydra.overrides.hydra)


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
    key = getattr(cause, "full_key", None)
    if key and not isinstance(error, OverrideParseException):
        if config_name == "evaluate" and is_metric(key):
            return f"{key}: this metric is not asked for, so nothing reads its options: choose metrics=[...,{key}]"
        known = _known_keys(config_name)
        return f"{key}: no such key{nearest(key, known)}\nSee all keys with --cfg job, the groups with --help"
    return "\n".join(line.strip() for line in str(error).splitlines()[:5] if line.strip())


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
