"""Where the config lies, what it may ask of a run, and what is raised when it is wrong. Imports nothing heavy."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

__all__ = ["CONF", "ConfigError", "NoMeaningError", "known_run"]

_package = Path(__file__).parent
CONF = str(_package / "conf" if (_package / "conf").is_dir() else _package.parents[1] / "conf")


class ConfigError(CompactHydraException):
    """Something a user can mend; shown in a few lines without a stack trace, exit code 2."""


class NoMeaningError(ConfigError):
    """What was asked for has no meaning for this run; the message says why, and the way out if there is one."""


_run: dict[str, Any] = {}


@contextmanager
def known_run(**values: Any) -> Iterator[None]:
    """Within it yaml that asks for `${run_dir:}`, `${run_id:}` or `${first_step:}` gets the values given here.

    Outside each stays as it is written, in the `config.yaml` of a run too: a run may be moved, and is resumed.

    Arguments:
        values: run_dir, the run folder; run_id, that of `run.json`; first_step, where this start of the run begins.
    """
    _run.update(values)
    try:
        yield
    finally:
        _run.clear()


def _of_run(name: str) -> Any:
    return _run.get(name, f"${{{name}:}}")


for _name in ("run_dir", "run_id", "first_step"):
    OmegaConf.register_new_resolver(_name, partial(_of_run, _name), replace=True)
