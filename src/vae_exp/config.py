"""Where the config lies, which options it has, and what is raised when it is wrong. Imports nothing heavy."""

from pathlib import Path

from hydra.errors import CompactHydraException

__all__ = ["CONF", "FOLDERS", "ConfigError", "NoMeaningError", "options"]

_package = Path(__file__).parent
CONF = str(_package / "conf" if (_package / "conf").is_dir() else _package.parents[1] / "conf")
FOLDERS = [Path(CONF)]  # where options are searched; a folder given with --config-dir comes first


class ConfigError(CompactHydraException):
    """Something a user can mend; shown in a few lines without a stack trace, exit code 2."""


class NoMeaningError(ConfigError, ValueError):
    """What was asked for has no meaning for this run or model; the message says why, and names a way out."""


def options(group: str) -> dict[str, Path]:
    """The options of a group in alphabetical order, with their files: the user's own, and those of the package."""
    files = {file.stem: file for folder in reversed(FOLDERS) for file in (folder / group).glob("*.yaml")}
    return dict(sorted(files.items()))
