"""The records of a run: JSON and tables, read in one place, which knows what is damaged. Imports nothing heavy."""

import csv
import json
import logging
from collections.abc import Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from vae_exp.config import ConfigError

__all__ = [
    "DamagedError",
    "read_evaluation",
    "read_json",
    "read_made",
    "read_record",
    "read_rows",
    "say",
    "sound_record",
    "whole_or",
]

T = TypeVar("T")
LARGEST = 200_000_000  # bytes of a record that is read
NUMBER, TEXT = (int, float), str
# What is read of `run.json`, with the types that are needed. Each may be missing, or null.
OF_RUN: dict[str, type | tuple[type, ...]] = {
    "run_id": TEXT, "status": TEXT, "error": TEXT, "cause": TEXT, "seed": int, "metrics": dict, "data": dict,
    "bound": dict, "contents": dict, "folded": TEXT, "choices": dict,
    "starts": list, "wall_seconds": NUMBER, "steps": int, "epochs": int,
}  # fmt: skip
OF_START = {"time": TEXT, "argv": list, "git": dict, "gpus": list, "versions": dict}
# The same of an `evaluation.json`, and its numbers that other parts of the package compute with.
OF_EVALUATION: dict[str, type | tuple[type, ...]] = {
    "checkpoint": TEXT, "split": TEXT, "weights": TEXT, "num_images": int, "bound": dict, "data": dict,
    "settings": dict, "headline": dict, "refused": dict,
}  # fmt: skip
TERMS = ("elbo", "kl", "recon", "iwae", "error", "nll", "mutual_information", "active_units")

log = logging.getLogger("vae_exp")


class DamagedError(ConfigError):
    """A file of a run cannot be read; the message names it, and what is wrong with it."""


def read_json(path: Path, types: Mapping[str, type | tuple[type, ...]] | None = None) -> dict[str, Any]:
    """The content of a JSON file; empty where there is none.

    Arguments:
        path: The file.
        types: The types of values by key; a key may be missing, or null.

    Raises:
        DamagedError: If it cannot be read, is no object, or a value has another type.
    """
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        content = json.loads(_bytes(path), parse_constant=lambda name: None, parse_int=_whole)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is damaged: it is no object but {type(content).__name__}")
    for key, kind in (types or {}).items():
        if not _has(content, {key: kind}):
            raise DamagedError(f"{path} is damaged: {key} is {str(content[key])[:40]!r}")
    return {key: value for key, value in content.items() if value is not None or key not in (types or {})}


def _has(content: Any, types: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether no value has another type than it needs, nor what holds them; each may be missing, or null."""
    if content is None:
        return True
    pairs = [(content.get(key), kind) for key, kind in types.items()] if isinstance(content, dict) else [("", dict)]
    return all(
        value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))
        for value, kind in pairs
    )


def read_record(folder: Path) -> dict[str, Any]:
    """What `run.json` of a folder says; empty where there is none, or it is damaged, of which one line is logged."""
    return whole_or({}, sound_record, folder)


def sound_record(folder: Path) -> dict[str, Any]:
    """What `run.json` of a folder says; empty where there is none.

    Raises:
        DamagedError: If it cannot be read, or a value has a type that it never has.
    """
    path = folder / "run.json"
    record = read_json(path, OF_RUN)
    if "status" not in record and path.exists():
        raise DamagedError(f"{path} is damaged: it has no status")
    metrics = {key: value for key, value in record.get("metrics", {}).items() if value is not None}
    for key, value in metrics.items():
        if not isinstance(value, int | float):
            raise DamagedError(f"{path} is damaged: metrics.{key} is {str(value)[:40]!r}")
    record |= {"metrics": metrics} if "metrics" in record else {}
    for start in record.get("starts", []):
        if not _has(start, OF_START) or not _has(start.get("git"), {"commit": TEXT, "dirty": bool}):
            raise DamagedError(f"{path} is damaged: starts are {str(start)[:40]!r}")
    return record


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `vae_exp.evaluate` wrote; empty where there is none, or it is damaged, of which one line is logged."""

    def sound() -> dict[str, Any]:
        content = read_json(path, OF_EVALUATION)
        if content and not {"checkpoint", "split", "bound"} <= content.keys():
            raise DamagedError(f"{path} is damaged: it does not say which weights and images it is of")
        for name, value in content.items():
            if ("_se_" in name or name in TERMS) and not isinstance(value, int | float | None):
                raise DamagedError(f"{path} is damaged: {name} is {str(value)[:40]!r}")
        return content

    return whole_or({}, sound)


def read_made(path: Path) -> dict[str, Any]:
    """What was written beside a picture; empty where there is nothing, or it is damaged; one line is logged of that."""

    def sound() -> dict[str, Any]:
        content = read_json(path, {"checkpoint": TEXT, "by": TEXT, "weights": TEXT})
        if content and "checkpoint" not in content:
            raise DamagedError(f"{path} is damaged: it does not say which weights the picture is of")
        return content

    return whole_or({}, sound)


def whole_or(instead: T, read: Any, *args: Any) -> T:
    """What `read` gives; `instead` if the file is damaged, of which one line is logged."""
    try:
        return read(*args)
    except DamagedError as error:
        say(str(error))
        return instead


@cache
def say(line: str) -> None:
    """Logs a line once, however often a file is read."""
    log.warning("%s", line)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a column `step`; none where there is no file.

    A row that was cut off, or holds what is no number, is left out; nan and infinity are an empty cell. One line of the
    log counts what is left out.
    """
    if not path.exists() and not path.is_symlink():
        return []
    try:
        text = _bytes(path).decode(errors="replace")
    except OSError as error:
        say(f"{path} is damaged: {_reason(error)}")
        return []
    rows, torn = _rows(text)
    if rows is None:
        say(f"{path} is damaged: it has no column step, and is left out")
        return []
    if torn:
        say(f"{path} is damaged: {torn} of {len(rows) + torn} rows {'is' if torn == 1 else 'are'} left out")
    return rows


def _rows(text: str) -> tuple[list[dict[str, str]] | None, int]:
    """The sound rows, None without a column `step`, and the number of the others."""
    lines = text.splitlines(keepends=True)
    head, *cells = [next(csv.reader([line], strict=False), []) if len(line) < 100_000 else [] for line in lines] or [[]]
    if "step" not in head or len(set(head)) < len(head):
        return None, len(cells)
    rows, torn = [], 0
    for line, row in zip(lines[1:], cells, strict=True):
        values = {name: _number(cell) for name, cell in zip(head, row, strict=False)}
        if len(row) != len(head) or None in values.values() or not values["step"].isdigit() or line[-1] not in "\r\n":
            torn += 1
        else:
            rows.append(values)
    return rows, torn


def _number(cell: str) -> Any:
    """A cell with a number; empty for one that is not finite, None for what is no number."""
    if not cell:
        return cell
    try:
        return cell if isfinite(float(cell)) else ""
    except ValueError:
        return None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 18 else float(digits)


def _bytes(path: Path) -> bytes:
    """The content of a plain file: a pipe or a device would never end."""
    if not path.is_file():
        raise OSError("it is no plain file")
    if path.stat().st_size > LARGEST:
        raise OSError(f"it has more than {LARGEST} bytes")
    return path.read_bytes()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0] if str(error) else type(error).__name__
