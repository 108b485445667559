"""A run folder: its config, its checkpoints and its files. Nothing is instantiated here."""

import json
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.overrides import override
from vae_exp.records import read_record
from vae_exp.runs.targets import check_links, check_paths, check_targets
from vae_exp.saved import read_config

if TYPE_CHECKING:
    from vae_exp.models import VAE

__all__ = [
    "checkpoint",
    "each_folder",
    "fingerprint",
    "load_checkpoint",
    "load_config",
    "load_weights",
    "resumed_config",
    "run_folders",
    "write_json",
]

log = logging.getLogger("vae_exp")

# What a resumed run may change; everything else must stay the same.
FREE_GROUPS = ("trainer", "logger", "callbacks")
FREE_KEYS = ("test", "report", "data.root", "data.eval_batch_size")
DEVICES = ("accelerator", "devices", "strategy")
# What the configs of earlier runs do not state of their loggers.
FOLDER, ID, STEP = {"save_dir": "${run_dir:}"}, {"run_id": "${run_id:}"}, {"first_step": "${first_step:}"}
OF_LOGGERS = {
    "vae_exp.loggers.CSV": FOLDER | STEP,
    "vae_exp.loggers.make_wandb": FOLDER | ID | STEP,
    "vae_exp.loggers.make_mlflow": FOLDER | ID,
    "pytorch_lightning.loggers.TensorBoardLogger": FOLDER,
}


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


def checkpoint(folder: str | Path, name: str) -> Path:
    """The path of the checkpoint `best` or `last` of a run.

    Raises:
        ConfigError: If there is none.
    """
    load_config(folder)
    path = Path(folder) / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise ConfigError(f"{folder} has no checkpoints/{name}.ckpt: the run stopped before it wrote one")
    return path


def fingerprint(path: Path) -> str | None:
    """The first 16 digits of the sha256 of a weights file, which results store; None if the file is missing."""
    return sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values.

    Raises:
        ConfigError: If the file is corrupt.
    """
    import torch  # imported late, so that a wrong folder is reported at once

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file can fail in any way
        raise ConfigError(f"{path} is corrupt: {str(error).splitlines()[0]}") from error


def load_weights(model: "VAE", path: Path) -> None:
    """Loads the weights of a checkpoint into a model that has the same parts.

    Raises:
        ConfigError: If the parts differ or the file is corrupt.
    """
    try:
        model.load_state_dict(load_checkpoint(path)["state_dict"])
        model.is_new = False
    except RuntimeError as error:
        reason = "\n".join(line.strip() for line in str(error).splitlines()[:3])
        raise ConfigError(f"{path} is from a model with other parts: {reason}") from error


def resumed_config(cfg: DictConfig, hydra: HydraConf) -> DictConfig:
    """The config of the run `cfg.resume`, with the changes that the command line sets.

    Raises:
        ConfigError: If there is no such run, it has no checkpoint, or the command line changes what must stay the same.
    """
    saved = load_config(cfg.resume)
    for name, node in (saved.get("logger") or {}).items():
        saved.logger[name] = node and OmegaConf.merge(OF_LOGGERS.get(node._target_, {}), node)
    before = saved.copy()
    _check_saved(saved, cfg, [word.lstrip("+~").partition("=")[0] for word in hydra.overrides.task])
    epoch = load_checkpoint(checkpoint(cfg.resume, "last"))["epoch"]
    cfg.name = saved.name
    for word in hydra.overrides.task:
        key = word.lstrip("+~").partition("=")[0]
        if key == "trainer":  # change where to train, but not for how long
            saved.trainer.update({name: cfg.trainer[name] for name in DEVICES})
        elif key in FREE_GROUPS:
            saved[key] = cfg[key]
        elif key in ("resume", "allow") or key in FREE_KEYS or key.partition(".")[0] in FREE_GROUPS:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
        else:
            raise ConfigError(
                f"{word}: a resumed run continues as it began; "
                f"only {', '.join((*FREE_GROUPS, *FREE_KEYS))} can change.\n"
                f"For another model, optimizer or data start a run with {override('init_from', cfg.resume)}"
            )
    if saved.trainer.max_epochs and 0 <= saved.trainer.max_epochs <= epoch:
        raise ConfigError(
            f"trainer.max_epochs={saved.trainer.max_epochs}: {cfg.resume} is in epoch {epoch + 1}, set a larger number"
        )
    status = read_record(Path(cfg.resume)).get("status")
    if status == "finished" and all(saved[key] == before[key] for key in ("trainer", "callbacks")):
        raise ConfigError(
            f"{cfg.resume} has ended, with at most trainer.max_epochs={saved.trainer.max_epochs}: "
            "to continue, set a larger number, or another callbacks.early_stopping.patience"
        )
    return saved


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is never half written: it is the old one or the new one. nan and infinity become null."""
    numbers_alone = json.loads(json.dumps(content), parse_constant=lambda name: None)  # JSON has no nan and infinity
    with written(path) as file:
        file.write(json.dumps(numbers_alone, indent=2) + "\n")


def _check_saved(saved: DictConfig, cfg: DictConfig, keys: list[str]) -> None:
    """Holds what goes on of a saved config, without the keys that the command line sets, against what it may name."""
    kept, path = saved.copy(), Path(cfg.resume) / "config.yaml"
    for key in keys:
        group, _, name = key.rpartition(".")
        if isinstance(node := OmegaConf.select(kept, group) if group else kept, DictConfig) and key != "trainer":
            node.pop(name, None)
    check_targets(kept, path, cfg.get("allow"))
    check_paths(kept, path, cfg)


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
