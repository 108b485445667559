"""Run folders as they lie on the disk, read without OmegaConf and torch: a thousand of them in a few seconds."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vae_exp.config import ConfigError
from vae_exp.records import DamagedError, sound_record
from vae_exp.runs.folder import fingerprint
from vae_exp.runs.state import state_of
from vae_exp.saved import LONGEST, check_text

__all__ = ["AXES", "TERMS", "Run", "is_stale", "read_runs", "run_folders"]

TERMS = ("elbo", "kl", "recon", "iwae", "error")
AXES = ("step", "epoch", "seconds")
BOUND = {"of", "representation", "kind", "is_bound"}
# Both are safe; libyaml's is ten times as fast as the one written in Python.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run(NamedTuple):
    """A finished run.

    Arguments:
        folder: The run folder.
        record: Its `run.json`.
        config: Its config, a value by dotted key.
        numbers: `test/elbo`, `val/kl`, `test/nll(K=5000)`, ...: those of the weights that were tested; nats per image.
        curves: Columns of the same length, a row for each validation: `step`, `epoch`, `seconds`, `elbo`, ...; nan
            where the file has no number.
        notes: What could not be read, in words.
    """

    folder: Path
    record: dict[str, Any]
    config: dict[str, Any]
    numbers: dict[str, float]
    curves: dict[str, list[float]]
    notes: list[str]

    @property
    def seed(self) -> int:
        """That of the training."""
        return self.config["seed"]

    @property
    def repeat(self) -> tuple[int, int | None]:
        """Seed, and the fold that it is tested on, None without folds."""
        return self.seed, self.config.get("data.fold", 0) if self.record.get("folded") else None


class _UnreadableError(Exception):
    """Why a folder is left out."""


def read_runs(patterns: Sequence[str]) -> tuple[list[Run], dict[Path, str]]:
    """The finished runs in some folders, and the reason for each run folder that is left out.

    Arguments:
        patterns: Run folders, folders that hold runs at any depth, or patterns for either.

    Raises:
        ConfigError: If there is no such folder, or no run folder in any of them.
    """
    runs: list[Run] = []
    left_out: dict[Path, str] = {}
    for folder in run_folders(patterns):
        try:
            runs.append(_read(folder))
        except _UnreadableError as error:
            left_out[folder] = str(error)
        except (OSError, UnicodeDecodeError) as error:
            left_out[folder] = f"cannot be read: {error}"
    if not runs:
        listed = [f"  {folder}: {reason}" for folder, reason in left_out.items()]
        more = [f"  and {len(listed) - 3} more"] if len(listed) > 3 else []
        raise ConfigError("\n".join([f"none of the {len(listed)} runs can be compared:", *listed[:3], *more]))
    return runs, left_out


def run_folders(patterns: Sequence[str]) -> list[Path]:
    """Run folders, those in folders that hold some at any depth, and those in what matches a pattern for either.

    Raises:
        ConfigError: If there is no such folder, or no run folder in any of them.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for pattern in patterns:
        folder = Path(pattern.removesuffix("/**") or "/")  # a folder stands for all that lies in it
        if not folder.exists() and any(sign in str(folder) for sign in "*?["):
            matches = sorted(Path(folder.anchor).glob(str(folder.relative_to(folder.anchor))))
        else:
            matches = [folder]
        of_one = [path for match in matches for path in _walk(match, seen)]
        if not of_one and not any(os.path.realpath(match) in seen for match in matches):
            raise ConfigError(f"run={pattern}: there is no such folder. Runs are under outputs/")
        found += of_one
    if not found:
        raise ConfigError(f"run={','.join(patterns)}: no run folder lies there. Runs are under outputs/")
    inside = set(found)
    return [path for path in found if not any(parent in inside for parent in path.parents)]


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    """The run folders in a folder; itself, if it is one. A link leads to a folder once."""
    real = os.path.realpath(folder)
    if real in seen or not folder.is_dir() or folder.name == "wandb":  # W&B has a config.yaml of its own
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        files = {entry.name: entry for entry in entries}
    if "run.json" in files or "config.yaml" in files:
        yield folder
        return
    for name in sorted(files):
        if files[name].is_dir() and not name.startswith("."):
            yield from _walk(folder / name, seen)


def _read(folder: Path) -> Run:
    record = _record(folder)
    config = _config(folder)
    notes: list[str] = []
    curves = _curves(folder, notes)
    metrics = record.get("metrics") or {}
    tested = "best" if f"best/{config.get('monitor')}" in metrics else "last"
    numbers = _evaluated(folder, record, f"{tested}.ckpt", notes)
    numbers |= {f"test/{term}": metrics[f"test/{term}"] for term in TERMS if _is_number(metrics.get(f"test/{term}"))}
    numbers |= {f"val/{term}": value for term, value in _validated(config, metrics, curves).items() if isfinite(value)}
    bound = f"iwae(K={_latents(config)})"
    numbers = {name.replace("iwae", bound) if name.endswith("/iwae") else name: x for name, x in numbers.items()}
    return Run(folder, record, config, numbers, curves, notes)


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = sound_record(folder)
    except DamagedError as error:
        raise _UnreadableError("run.json is damaged") from error
    if not record:
        raise _UnreadableError("it has no run.json: the run never began")
    if record.get("status") != "finished":
        why = str(record.get("error") or "").splitlines()[:1]
        status = record.get("status", "no status")
        status = state_of(folder, record) if status == "running" else status  # its process may be gone
        raise _UnreadableError(": ".join(["it never began" if status == "new" else str(status), *why]))
    for key, needed in (("bound", BOUND), ("data", set())):
        if not isinstance(record.get(key), dict) or not needed <= record[key].keys():
            raise _UnreadableError(f"run.json has no {key}, so nobody knows what its numbers compare with")
    return record


def _config(folder: Path) -> dict[str, Any]:
    try:
        with (folder / "config.yaml").open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
        # A key at the left begins a block; runs have most of their blocks in common.
        config = {
            key: value for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE) for key, value in _block(block)
        }
    except FileNotFoundError:
        raise _UnreadableError("it has no config.yaml") from None
    except yaml.YAMLError as error:
        raise _UnreadableError("config.yaml is torn") from error
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"config.yaml cannot be used: {error}") from error
    if "seed" not in config or not any(key.startswith("data.") for key in config):
        raise _UnreadableError("config.yaml is no config of a run")
    return config


@lru_cache(maxsize=4096)
def _block(text: str) -> tuple[tuple[str, Any], ...]:
    check_text(text)
    node = yaml.load(text, LOADER)  # noqa: S506
    return tuple(_leaves(node)) if isinstance(node, dict) else ()


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, list | dict) else value


def _curves(folder: Path, notes: list[str]) -> dict[str, list[float]]:
    """The rows of `metrics.csv` that hold a validation. A row that is cut off is left out, which a note says."""
    path = folder / "metrics.csv"
    if not path.is_file():
        notes.append("no metrics.csv: no curves")
        return {}
    curves: dict[str, list[float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            head = next(rows, [])
            place = {name: column for column, name in enumerate(head)}
            terms = [(term, place[f"val/{term}"]) for term in TERMS if f"val/{term}" in place]
            axes = [(axis, place[axis]) for axis in AXES if axis in place]
            if "step" not in place:
                notes.append("metrics.csv has no column step: no curves")
                return {}
            curves = {name: [] for name, _ in (*axes, *terms)}
            torn = 0
            for row in rows:
                if len(row) != len(head):
                    torn += 1
                elif any(row[column] for _, column in terms):
                    try:
                        values = [float(row[column] or "nan") for _, column in (*axes, *terms)]
                    except ValueError:
                        torn += 1
                    else:
                        for column, value in zip(curves.values(), values, strict=True):
                            column.append(value)
    except (csv.Error, UnicodeDecodeError):
        notes.append("metrics.csv is torn: its curves end there")
    else:
        if torn:
            notes.append(f"metrics.csv: {torn} torn row{'s' if torn > 1 else ''} left out")
    if curves and not any(curves.values()):
        notes.append("metrics.csv has no validation: no curves")
    return curves


def _validated(
    config: Mapping[str, Any], metrics: Mapping[str, Any], curves: Mapping[str, list[float]]
) -> dict[str, float]:
    """The validation of the weights that were tested: the best one, or the last one where no best one was kept."""
    key = str(config.get("monitor"))
    monitor = key.removeprefix("val/")
    best: Any = metrics.get(f"best/{key}")
    terms = [term for term in TERMS if curves.get(term)]
    if not terms:
        return {monitor: best} if monitor in TERMS and _is_number(best) else {}
    last = len(curves["step"]) - 1
    if best is None or monitor not in terms:
        return {term: curves[term][last] for term in terms}
    sign = -1.0 if config.get("monitor_mode") == "min" else 1.0
    scores = [sign * value if isfinite(value) else -inf for value in curves[monitor]]
    row = scores.index(max(scores))
    return {term: curves[term][row] for term in terms}


def _evaluated(folder: Path, record: Mapping[str, Any], tested: str, notes: list[str]) -> dict[str, float]:
    """What `vae_exp.evaluate` wrote: nll, and for a run without a test at its end elbo, kl and recon."""
    numbers = {}
    for split, name in (("test", "evaluation.json"), ("val", "evaluation_val.json")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_bytes())
            of, images = found["checkpoint"], found["data"][split]
        except (ValueError, KeyError, TypeError):
            notes.append(f"{name} is torn: left out")
            continue
        if images != record["data"].get(split, images) or found.get("bound", record["bound"]) != record["bound"]:
            notes.append(f"{name} is of other images: left out")
        elif is_stale(path, folder / "checkpoints" / of, found.get("weights")):
            notes.append(f"{name} is of earlier weights: left out")
        else:
            weights = "" if of == tested else f", {Path(of).stem} weights"
            if _is_number(found.get("nll")):
                numbers[f"{split}/nll(K={found.get('nll_samples')}{weights})"] = found["nll"]
            if split == "test" and not weights:
                numbers |= {f"test/{term}": found[term] for term in TERMS if _is_number(found.get(term))}
    return numbers


def is_stale(result: Path, weights: Path, known: str | None) -> bool:
    """Whether the weights have changed since the result. They are read only if their file is the newer one."""
    if known is None or not weights.is_file() or weights.stat().st_mtime <= result.stat().st_mtime:
        return False
    return fingerprint(weights) != known


def _latents(config: Mapping[str, Any]) -> Any:
    """K of the bound that an importance-weighted objective logs; for piwae M * K latents."""
    samples, groups = (config.get(f"objective.{key}", 1) for key in ("num_samples", "num_groups"))
    is_one_bound = str(config.get("objective._target_")).endswith(".PIWAE")
    return samples * groups if is_one_bound else samples


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)
