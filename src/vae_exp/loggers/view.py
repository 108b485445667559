"""Loggers beside `metrics.csv` are views of a run: where one fails, the run goes on without it."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from pytorch_lightning.loggers import Logger

from vae_exp.config import ConfigError
from vae_exp.loggers.csv import CSV

__all__ = ["as_view"]

# What Lightning and the callbacks call.
METHODS = ("after_save_checkpoint", "finalize", "log_graph", "log_hyperparams", "log_image", "log_metrics", "save")

log = logging.getLogger("vae_exp")


def as_view(make: Callable[[], Logger], name: str) -> Logger | None:
    """The logger that `make` makes, whose first error is one warning; then it is called no more.

    `metrics.csv` is no view: if it cannot be written, nothing can.

    Arguments:
        make: Makes the logger.
        name: Of the logger, for the warning.

    Returns:
        The logger; None if it failed at once.

    Raises:
        ConfigError: If an argument is wrong, as a ValueError may be, too.
    """
    lost: list[BaseException] = []

    def lose(error: Exception) -> None:
        lost.append(error)
        reason = (str(error).strip().splitlines() or [""])[0]
        log.warning("logger.%s has failed, the run goes on without it: %s: %s", name, type(error).__name__, reason)

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if lost:
                return None
            try:
                return method(*args, **kwargs)
            except Exception as error:  # its process has died, its server or its disk is gone
                lose(error)

        return call

    try:
        logger = make()
    except (ConfigError, ValueError):  # the user can mend it
        raise
    except Exception as error:
        lose(error)
        return None
    if isinstance(logger, CSV):
        return logger
    try:
        _ = getattr(logger, "experiment", None)  # Lightning asks for it, and it is made when it is first asked for
    except Exception as error:
        lose(error)
        return None
    for method in METHODS:
        if hasattr(logger, method):
            setattr(logger, method, guarded(getattr(logger, method)))
    return logger
