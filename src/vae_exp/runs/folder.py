"""A run folder: its config, its checkpoints and its files. Nothing is instantiated here."""

import json
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.runs.targets import check_links
from vae_exp.saved import read_config

__all__ = [
    "each_folder",
    "fingerprint",
    "load_config",
    "run_folders",
    "write_json",
]

log = logging.getLogger("vae_exp")


def load_config(folder: str | Path) -> DictConfig:
    """The resolved config of a run, which is data: see `vae_exp.runs.saved`.

    Raises:
        ConfigError: If the folder is not a run folder, or its config is no config of a run.
    """
    for name in ("config.yaml", "run.json"):
        if not (Path(folder) / name).is_file():
            raise ConfigError(f"{folder} is not a run folder: it has no {name}. Runs are under outputs/")
    check_links(Path(folder))
    return read_config(Path(folder) / "config.yaml")


def fingerprint(path: Path) -> str | None:
    """The first 16 digits of the sha256 of a weights file, which results store; None if the file is missing."""
    return sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is never half written: it is the old one or the new one. nan and infinity become null."""
    numbers_alone = json.loads(json.dumps(content), parse_constant=lambda name: None)  # JSON has no nan and infinity
    with written(path) as file:
        file.write(json.dumps(numbers_alone, indent=2) + "\n")


def each_folder(cfg: DictConfig, work: Callable[[Path], Any]) -> dict[Path, Any]:
    """Calls `work` on every run folder that `cfg.run` names; if one fails, the others are still done.

    Arguments:
        cfg: A config with the keys of `conf/trained.yaml`.
        work: A function of one run folder.

    Returns:
        The results of `work`, by run folder.

    Raises:
        ConfigError: If there is no such run; at the end, if any run failed, with the reason for each.
    """
    folders = run_folders(cfg)
    results, failed = {}, []
    for folder in folders:
        try:
            results[folder] = work(folder)
        except (ConfigError, OmegaConfBaseException) as error:
            if len(folders) == 1:
                raise
            log.error("%s: %s", folder, error)
            failed.append(f"{folder}: {error}")
    if failed:
        raise ConfigError("\n".join([f"{len(failed)} of {len(folders)} runs failed:", *failed]))
    return results


def run_folders(cfg: DictConfig) -> list[Path]:
    """The folders that `cfg.run` names: one folder, a pattern for several, or a list of these.

    Raises:
        ConfigError: If there are none, or the only one is not a run folder, or `cfg.logger` is not none or wandb.
    """
    if cfg.logger and "wandb" not in cfg.logger:
        raise ConfigError("logger: choose none, or wandb, which adds the results to the run's record there")
    runs = cfg.run if isinstance(cfg.run, ListConfig) else [cfg.run]
    if not runs or not all(runs):
        given = "null" if cfg.run is None else cfg.run
        raise ConfigError(f"run={given}: give a run folder, a pattern for several, or a list of these")
    folders = list(dict.fromkeys(folder for run in runs for folder in _folders(str(run))))
    if len(folders) == 1:
        load_config(folders[0])
    return folders


def _folders(run: str) -> list[Path]:
    """The run folder with this name, or the run folders that match the pattern."""
    pattern = Path(run)
    if pattern.exists() or not any(sign in run for sign in "*?["):
        return [pattern]
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    folders = sorted(path for path in found if (path / "config.yaml").is_file())
    if not folders:
        raise ConfigError(f"run={run}: no run folder has such a name. Runs are under outputs/")
    return folders
