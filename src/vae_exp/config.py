"""Where the config lies, and what is raised when it is wrong. Imports nothing heavy."""

from pathlib import Path

from hydra.errors import CompactHydraException

__all__ = ["CONF", "ConfigError", "NoMeaningError"]

_package = Path(__file__).parent
CONF = str(_package / "conf" if (_package / "conf").is_dir() else _package.parents[1] / "conf")


class ConfigError(CompactHydraException):
    """Something a user can mend; shown in a few lines without a stack trace, exit code 2."""


class NoMeaningError(ConfigError, ValueError):
    """What was asked for has no meaning for this run or model; the message says why, and names a way out."""
