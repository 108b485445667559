"""What a saved config may name: parts to make, and places in its own run folder to write to."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_exp.config import ConfigError
from vae_exp.overrides import OF_SWEEPS, override

__all__ = ["check_links", "check_paths", "check_targets", "own_modules"]

META = ("_target_", "_partial_", "_convert_", "_recursive_")
# Where a class of a saved config is defined.
HOMES = (
    "vae_exp", "zuko", "torch.nn", "torch.optim", "pytorch_lightning.callbacks", "pytorch_lightning.loggers",
    "pytorch_lightning.trainer", "torchvision.transforms.v2",
)  # fmt: skip
FACTORIES = {"logger": ("vae_exp.loggers.make_wandb", "vae_exp.loggers.make_mlflow")}
WRITERS = ("callbacks", "logger", "trainer")
OF_FOLDERS = ("dir", "path", "root", "folder", "storage", "uri", "url", "location")  # in the name of a key
UNREAD = ("_target_", "title")  # no paths
LOG_OF_WANDB = "debug-core.log"  # a link that W&B makes to where it logs by itself; nobody writes through it
OURS = ("sqlite:///outputs/mlflow.db",)  # conf/logger/mlflow.yaml


def check_targets(cfg: DictConfig, path: Path, allow: str | Sequence[str] | None = None) -> None:
    """Refuses what is no part, before anything is made.

    Arguments:
        cfg: A saved config.
        path: Its file, for the message.
        allow: Modules of the user's own, or classes, that may be run besides.

    Raises:
        ConfigError: If a `_target_` is no class of the kind that its key needs, defined in this package, zuko, torch or
            Lightning, and not in a module of `allow`.
    """
    allowed = [allow] if isinstance(allow, str) else list(allow or ())
    for key, node in _nodes(OmegaConf.to_container(cfg), ""):
        for name in node:
            if str(name).startswith("_") and str(name).endswith("_") and name not in META:
                raise ConfigError(f"{path}: {key}.{name} is no key of a saved config")
        if "_target_" not in node:
            continue
        target = str(node["_target_"])
        if any(target == name or target.startswith(f"{name}.") for name in allowed):
            continue
        if reason := _objection(target, key):
            raise ConfigError(
                f"{path}: {key}._target_={target} would be run, and {reason}.\n"
                f"If it is yours, or you would run any code of whoever made this folder, add "
                f"{override('allow', _module(target))}"
            )


def own_modules(cfg: DictConfig) -> list[str]:
    """What `allow` has to name for the config of a run."""
    nodes = [
        (str(node["_target_"]), key) for key, node in _nodes(OmegaConf.to_container(cfg), "") if "_target_" in node
    ]
    return sorted({_module(target) for target, key in nodes if _objection(target, key)})


def _module(target: str) -> str:
    return target.rpartition(".")[0] or target


def _nodes(value: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The mappings of a config with their dotted keys, those in lists too."""
    if isinstance(value, dict):
        if key:
            yield key, value
        for name, each in value.items():
            yield from _nodes(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _nodes(each, f"{key}[{place}]")


def _objection(target: str, key: str) -> str:
    """Why a target is not run; empty for a part. Nothing outside `HOMES` is imported."""
    group = key.partition(".")[0].partition("[")[0]
    if group in OF_SWEEPS:  # nobody makes them of a saved config
        return ""
    if target in FACTORIES.get(group, ()):
        return ""
    module, _, name = target.rpartition(".")
    if not (_is_at_home(module) or module == "pytorch_lightning"):
        return "it is not defined in vae_exp, zuko, torch.nn, torch.optim, torchvision.transforms.v2 or Lightning"
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return "there is no such class"
    if not isinstance(found, type) or not _is_at_home(found.__module__):
        return "it is no class of vae_exp, zuko, torch.nn, torch.optim, torchvision.transforms.v2 or Lightning"
    if not issubclass(found, _kinds()[group if group in _kinds() else "part"]):
        return f"it is no {group if group in _kinds() else 'part'}"
    return ""


def _is_at_home(module: str) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in HOMES)


@cache
def _kinds() -> dict[str, tuple[type, ...]]:
    """What is made of each group; the class of any other is one of `part`."""
    import pytorch_lightning as pl  # imported late, so that a wrong folder is reported at once
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import Logger
    from torch import nn
    from torch.distributions import Distribution, Transform
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torchvision.transforms import v2

    from vae_exp.data.split import Source
    from vae_exp.init import Init
    from vae_exp.objectives.model import Objective
    from vae_exp.schedules import Schedule

    parts = (nn.Module, Init, Objective, Schedule, Distribution, Transform)
    return {
        "part": parts,
        "optimizer": (Optimizer, LRScheduler, Schedule),
        "data": (pl.LightningDataModule, Source, v2.Transform),
        "trainer": (pl.Trainer,),
        "callbacks": (Callback,),
        "logger": (Logger,),
    }


def check_paths(cfg: DictConfig, path: Path, stated: DictConfig) -> None:
    """Refuses a callback, logger or trainer of a saved config that would write outside its run folder, or to a server.

    Arguments:
        cfg: A saved config.
        path: Its file, in the run folder.
        stated: The config of the command: what it says, too, is the user's own.

    Raises:
        ConfigError: If there is one; the message names the key.
    """
    folder = path.parent.resolve()
    for key, node in _nodes(OmegaConf.to_container(cfg), ""):
        for name, value in node.items() if key.partition(".")[0] in WRITERS else ():
            if isinstance(value, str) and _leads_out(str(name), value, folder):
                if _stated(stated, f"{key}.{name}") == value:
                    continue
                raise ConfigError(
                    f"{path}: {key}.{name}={value} lies outside the run folder, where nothing is written.\n"
                    f"To write there, state it again: {override(f'{key}.{name}', value)}"
                )


def _leads_out(name: str, value: str, folder: Path) -> bool:
    """Whether a value names a place outside the run folder."""
    if name in UNREAD or value in OURS:
        return False
    path = Path(value.replace("${run_dir:}", str(folder)))
    is_anywhere = value.startswith("~") or path.is_absolute() or ".." in path.parts
    is_of_folder = any(part in name for part in OF_FOLDERS) and value != ""
    return "://" in value or ((is_anywhere or is_of_folder) and not path.resolve().is_relative_to(folder))


def _stated(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:  # a value in place of a node
        return None


def check_links(folder: Path) -> None:
    """Refuses a link to a folder outside the run folder: files would be written there.

    A link in place of a file is no danger where this package writes, for it is replaced, see `vae_exp.files`; W&B and
    TensorBoard would follow it.

    Raises:
        ConfigError: If there is such a link.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        own = Path(place) == home or Path(place).relative_to(home).parts[0] in ("checkpoints", "images", "export")
        for name in folders if own else [*folders, *(file for file in files if file != LOG_OF_WANDB)]:
            link = Path(place, name)
            if link.is_symlink() and not link.resolve().is_relative_to(home):
                raise ConfigError(
                    f"{folder / link.relative_to(home)} is a link to {link.resolve()}: nothing is written outside the "
                    "run folder.\nPut a copy in its place; a whole run folder may be a link"
                )
