"""Ranges of options, which a metric checks before it uses the run."""

from typing import Any

__all__ = ["at_least"]


def at_least(least: float, **options: Any) -> None:
    """Checks that options are numbers and large enough.

    Raises:
        ValueError: If one is not; the message names it.
    """
    for key, value in options.items():
        if not isinstance(value, int | float) or value < least:
            raise ValueError(f"{key}={'null' if value is None else value}: at least {least} is needed")
