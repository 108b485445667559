"""The command line: its help, checks of what was typed, errors in a few lines. Imports nothing heavy."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from vae_exp.config import CONF, ConfigError

__all__ = [
    "check_overrides",
    "exit_code",
    "help_page",
    "job",
    "register_resolvers",
    "run_command",
]

MANY_TYPES = (
    "trainer.devices",  # 2, [0, 1], auto
    "trainer.deterministic",  # true, warn
    "trainer.val_check_interval",  # 0.5 of an epoch, 100 batches
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val", "test")),  # likewise
    "data.levels",  # 256, unit
)

log = logging.getLogger("vae_exp")
failed_jobs: list[str] = []  # of a sweep, for its last words


def register_resolvers() -> None:
    """What `conf/` interpolates beside Hydra's own."""

    def choices() -> list[str]:
        chosen = HydraConfig.get().runtime.choices
        return [f"{group}={name}" for group, name in chosen.items() if name and "/" not in group]

    def sweep_name() -> str | None:
        config = HydraConfig.get()
        return Path(config.sweep.dir).name if config.mode == RunMode.MULTIRUN else None

    def run_folder(resume: str | None, new: str) -> str:
        return resume if resume and (Path(resume) / "config.yaml").is_file() else new

    def subtract(total: int, *parts: int | None) -> int:
        return total - sum(part or 0 for part in parts)  # null: nothing is cut off

    for resolver in (choices, sweep_name, run_folder, subtract, help_page):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def help_page(command: str, what: str | None) -> str:
    """What `--help` shows of a command on trained runs: the comments in `conf/` on it and its keys.

    Arguments:
        command: Whose page it is.
        what: The chosen option of `conf/what/`, of a command that has this group.
    """
    about, keys = _documented(f"{command}.yaml")
    page = [*about, ""]
    if what:
        options = {path.stem: _documented(f"what/{path.name}") for path in sorted((Path(CONF) / "what").glob("*.yaml"))}
        page += ["what=", *(f"  {name:<17}{' '.join(words[1:])}" for name, (words, _) in options.items()), ""]
        keys = [*keys, *(options[what][1] if what in options else [])]
    if keys:
        page += [f"keys of {f'what={what}' if what else command}:", *keys, ""]
    page += ["keys of every command on trained runs:", *_documented("trained.yaml")[1]]
    return "\n".join(page).replace("$", "$$")  # for the template that Hydra fills with it


def _documented(name: str) -> tuple[list[str], list[str]]:
    """The comment that a file of `conf/` begins with, and its keys as the command line writes them, comments beside.

    A group with a comment of its own stands among the keys.
    """
    about: list[str] = []
    keys: list[str] = []
    group = ""
    for line in (Path(CONF) / name).read_text().splitlines():
        if line.startswith("#") and not group:
            about.append(line.removeprefix("# "))
        elif (chosen := re.fullmatch(r"  - (?:/\w+@)?(\w+): (\w+) # (.*)", line)) and chosen[1] != "what":
            keys.append(f"  {chosen[1]}={chosen[2]}".ljust(31) + " " + chosen[3])
        elif found := re.fullmatch(r"( *)(\w+):(?: (.*?))?(?: # (.*))?", line):
            indent, key, value, comment = found.groups()
            group = group if indent else key
            if value is not None and group not in ("defaults", "hydra", "what"):
                full = f"{group}.{key}" if indent else key
                keys.append(f"  {full}={value.replace('???', '...')}".ljust(31) + " " + (comment or ""))
    return about, [line.rstrip() for line in keys]


def run_command(main: Callable[[], Any], config_name: str) -> NoReturn:
    """Runs the Hydra main function of a command and ends the process with its exit code."""
    register_resolvers()
    sys.exit(exit_code(main, config_name))


def exit_code(main: Callable[[], Any], config_name: str) -> int:
    """Runs a Hydra main function and puts what a user can mend into a few lines on stderr.

    Returns:
        The exit code: 0, 2 after such an error, 130 after Ctrl-C. Any other error leaves with its stack trace.
    """
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves the report to us
    try:
        main()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if wants_trace:
            raise
        print(f"error: {_explain(error, config_name)}", file=sys.stderr)  # noqa: T201
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


@contextmanager
def job() -> Iterator[None]:
    """Around one job: what fails is written down at once, for a sweep goes on with the others."""
    try:
        yield
    except Exception as error:
        hydra, folder = HydraConfig.get(), Path(HydraConfig.get().runtime.output_dir)
        if hydra.mode == RunMode.MULTIRUN:
            failed_jobs.append(
                f"{folder} ({hydra.job.override_dirname}): {_explain(error, str(hydra.job.config_name))}"
            )
            log.error("error: job %s", failed_jobs[-1])
        elif not _is_chosen(hydra) and (folder / "train.log").exists() and not (folder / "config.yaml").exists():
            # The folder is one that Hydra made for this job and nothing began: it would only be in the way.
            (folder / "train.log").unlink()
            with suppress(OSError):
                folder.rmdir()
        raise


def _is_chosen(hydra: HydraConf) -> bool:
    """Whether the user chose the run folder, which may then hold what is theirs."""
    return any(override.startswith("hydra.run") for override in hydra.overrides.hydra)


def check_overrides(cfg: DictConfig, config_name: str) -> None:
    """Holds each value set on the command line against its default.

    Raises:
        ConfigError: For a value of another type, and for a new key that nothing reads.
    """
    hydra = HydraConfig.get()
    overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    groups = [o for o in overrides if o.key_or_group in hydra.runtime.choices]
    defaults = compose(config_name, overrides=[o.input_line or "" for o in groups])
    # `what` is the one group whose options bring keys of their own.
    known = compose(config_name, overrides=[o.input_line or "" for o in groups if o.key_or_group == "what"])
    names = [*known, *hydra.runtime.choices]
    for key in cfg:
        if key not in names:
            raise ConfigError(f"nothing reads {key!s}{_nearest(str(key), map(str, names))}")
    for override in overrides:
        key = override.key_or_group
        if override in groups or override.is_delete() or key in MANY_TYPES:
            continue
        given, default = OmegaConf.select(cfg, key), OmegaConf.select(defaults, key)
        kind = _needed(default)
        if given is not None and kind is not None and not isinstance(given, kind[0]):
            raise ConfigError(f"{key}={given}: {kind[1]} is needed; the default is {default}")


def _needed(default: Any) -> tuple[type | tuple[type, ...], str] | None:
    """The type that replaces a default, and its name; None where any may."""
    if isinstance(default, bool):
        return bool, "true or false"
    if isinstance(default, int):
        return int, "a whole number"
    if isinstance(default, float):
        return (int, float), "a number"
    return None


def _explain(error: BaseException, config_name: str) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        options = ", ".join(error.options)
        return f"{group}={given}: no such option{_nearest(given, error.options)}\n{group} is one of: {options}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given: {cause.full_key}=..."
    key = getattr(cause, "full_key", None)
    if key and not isinstance(error, OverrideParseException):
        known = _known_keys(config_name)
        return f"{key}: no such key{_nearest(key, known)}\nSee all keys with --cfg job, the groups with --help"
    return "\n".join(line.strip() for line in str(error).splitlines()[:5] if line.strip())


def _known_keys(config_name: str) -> list[str]:
    """Groups and dotted keys of the config, with the groups that the command line chooses where they exist."""
    chosen = [arg for arg in sys.argv[1:] if (Path(CONF) / f"{arg.replace('=', '/', 1)}.yaml").is_file()]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(config_name, overrides=chosen)
    return [*_keys(cfg), *(path.name for path in Path(CONF).iterdir() if path.is_dir())]


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


def _nearest(given: str, known: Iterable[str]) -> str:
    close = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
