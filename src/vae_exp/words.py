"""The words of a command line, put in order and checked before Hydra reads them. Imports nothing heavy."""

import re
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, OverrideParseException

from vae_exp.config import CONF, ConfigError, options
from vae_exp.overrides import nearest, quoted

__all__ = [
    "COMMANDS",
    "check_choices",
    "check_words",
    "of_agent",
    "options_first",
    "with_own_folder_first",
    "with_quotes",
    "with_run",
]

COMMANDS = ("train", "evaluate", "generate", "report", "explore", "export", "compare", "sync", "sweep")
# Of Hydra's options, those that a word follows.
OPTIONS_WITH_VALUE = (
    "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--info", "-i", "--package",
    "-p", "--experimental-rerun",
)  # fmt: skip
OF_HYDRA = ("--cfg", "--info", "--package", "--experimental-rerun", "--run", "--multirun", "--resolve")
SEVERAL = ("logger", "callbacks", "metrics", "experiment", "local")  # groups of which several options may be chosen


def with_run(words: list[str]) -> list[str]:
    """The command line with the words that name no key as `run=[...]`: folders, or patterns for several."""
    bare = [
        word
        for before, word in pairwise(["", *words])
        if "=" not in word and not word.startswith(("-", "~")) and before not in OPTIONS_WITH_VALUE
    ]
    run = [f"run=[{','.join(map(quoted, bare))}]"] if bare else []
    return [word for word in words if word not in bare] + run


def of_agent(words: list[str]) -> list[str]:
    """The words with `--latent_dim=4`, as an agent of a W&B sweep writes it, as `latent_dim=4`.

    Options of Hydra's stay: those without a value, those with a hyphen in their name and those of `OF_HYDRA`.
    """
    keys = re.compile(r"--([A-Za-z_][\w./@]*)=")
    return [word[2:] if keys.match(word) and word.partition("=")[0] not in OF_HYDRA else word for word in words]


def with_quotes(words: list[str]) -> list[str]:
    """The words with quotes around each value that is a path and needs them in Hydra's grammar, such as `~/my=x`."""
    return [_quoted_path(word) for word in words]


def _quoted_path(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[+~]*[A-Za-z_][\w./@]*", key) or not _is_path(value):
        return word
    with suppress(HydraException):  # what cannot be read needs the quotes
        if OverridesParser.create().parse_override(word).value() == value:
            return word
    return f"{key}={quoted(value)}"


def _is_path(value: str) -> bool:
    """Whether a value begins as a path does, or names what is there; what is quoted or a list already is no path."""
    if not value or value[0] in "'\"[{$":
        return False
    try:
        return value.startswith("~/") or value == "~" or Path(value).exists()
    except OSError:  # a name that no file may have
        return False


def options_first(words: list[str]) -> list[str]:
    """The words with Hydra's options, such as `-m`, before the others: Hydra does not look for them later.

    Raises:
        ConfigError: For an option that Hydra does not have.
    """
    is_option = [word.startswith("-") or before in OPTIONS_WITH_VALUE for before, word in pairwise(["", *words])]
    options = [word for word, is_first in zip(words, is_option, strict=True) if is_first]
    parser = get_args_parser()
    parser.error = _refuse_option  # type: ignore[method-assign]  # argparse prints the usage and ends the process
    parser.parse_args(options)
    return options + [word for word, is_first in zip(words, is_option, strict=True) if not is_first]


def _refuse_option(message: str) -> NoReturn:
    raise ConfigError(f"{message}\nA key is set without hyphens, seed=1; --hydra-help shows the options, such as -m")


def check_words(words: list[str]) -> None:
    """Refuses a word that is neither an option of Hydra's nor key=value, such as a misspelled command."""
    keys: dict[str, str] = {}
    for before, word in pairwise(["", *words]):
        if word.startswith("-") or before in OPTIONS_WITH_VALUE:
            continue
        key, equals, value = word.partition("=")
        if not equals and not word.startswith("~"):
            is_run = (Path(word) / "config.yaml").is_file()
            way_out = f"; a run folder is given as run={word}" if is_run else nearest(word, COMMANDS)
            raise ConfigError(
                f"{word}: neither a command nor key=value{way_out}\n"
                f"The commands are {', '.join(COMMANDS)}, one at the beginning: vae_exp {COMMANDS[1]} run=..."
            )
        if key in ("hydra.run.dir", "hydra.sweep.dir") and value in ("", "''", '""', "null"):
            raise ConfigError(f"{word}: a folder is needed; the current one is {key}=.")
        if key == "name" and (value in ("", "''", '""') or ".." in value.split("/")):
            raise ConfigError(f"{word}: the name of the run, part of its folder, is not empty and has no ..")
        if key in keys and keys[key] != value:
            print(f"{key} is given twice, the last one counts: {word}", file=sys.stderr)  # noqa: T201
        keys[key] = value


def check_choices(words: list[str], config_name: str) -> None:
    """Refuses `group=null`, and whatever else is no name of an option, which Hydra answers with a stack trace.

    A list of options is refused too, unless the group holds several things at a time.
    """
    for word in words:
        group = word.lstrip("+").partition("=")[0].partition("@")[0]
        if "=" in word and (known := options(group)):
            with suppress(OverrideParseException):  # Hydra says what is wrong with it
                value = OverridesParser.create().parse_override(word).value()
                if isinstance(value, list) and group not in SEVERAL:
                    raise ConfigError(f"{word}: {group} is one of {', '.join(known)}, not a list")
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


def with_own_folder_first(argv: list[str]) -> tuple[str, list[str]]:
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
