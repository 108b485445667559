"""The pictures that a run ends with: what its config says in `draw`, made as `python -m vae_exp.generate` makes it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_exp.calls import called
from vae_exp.config import ConfigError, options
from vae_exp.overrides import check_overrides
from vae_exp.runs.targets import own_modules
from vae_exp.what.make import generate_runs

__all__ = ["check_draw", "draw"]

# Keys of the command that the run itself sets, or the command line of `generate`.
OF_COMMAND = (
    "run", "what", "rows", "checkpoint", "split", "seed", "accelerator", "data_root", "progress", "allow", "logger",
    "hydra",
)  # fmt: skip

log = logging.getLogger("vae_exp")


def check_draw(cfg: DictConfig, folder: Path) -> None:
    """Composes every command of `draw`, so that what is wrong with one is said before training.

    Arguments:
        cfg: The resolved config of a run.
        folder: The run folder.

    Raises:
        ConfigError: If there is no such `what`, or it has no such key or value.
    """
    for what in _wanted(cfg):
        with _command(cfg, folder, what):
            pass


def draw(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Makes the pictures of a finished run; one that has no meaning for it is named in the log.

    Returns:
        The numbers that came with them, as `what/name`.
    """
    numbers: dict[str, float] = {}
    for what in _wanted(cfg):
        try:
            with _command(cfg, folder, what) as command:
                (made,) = generate_runs(command, what).values()
        except ConfigError as error:
            log.warning("draw.%s: there is no picture: %s", what, error)
            continue
        numbers |= {f"{what}/{name}": value for name, value in made.items() if isinstance(value, float)}
    return numbers


def _wanted(cfg: DictConfig) -> dict[str, Any]:
    """The options of each `what` by its name."""
    wanted: Any = OmegaConf.to_container(cfg.get("draw") or OmegaConf.create({}))
    known = options("what")
    if not isinstance(wanted, dict) or not all(isinstance(keys, dict) for keys in wanted.values()):
        raise ConfigError(
            f"draw={wanted}: names of what with keys are needed: draw={{samples:{{num_images:25}},traversal:{{}}}}"
        )
    for what, keys in wanted.items():
        if what not in known:
            raise ConfigError(f"draw.{what}: there is no such what, choose of {', '.join(known)}")
        _check_keys(f"draw.{what}", keys)
    return wanted


def _check_keys(prefix: str, keys: dict[Any, Any]) -> None:
    """Refuses what is no key of the `what` itself: a saved config may come from anybody, see `vae_exp.runs.targets`."""
    for key, value in keys.items():
        if not re.fullmatch(r"\w+", str(key)) or key in OF_COMMAND:
            raise ConfigError(f"{prefix}.{key}: no such key; the keys of each what are those of conf/what/")
        if isinstance(value, dict):
            _check_keys(f"{prefix}.{key}", value)


@contextmanager
def _command(cfg: DictConfig, folder: Path, what: str) -> Iterator[DictConfig]:
    """The config of `generate` for one `what`, with the weights that were tested and the device of the training."""
    settings: dict[str, Any] = {
        "run": str(folder),
        "what": what,
        "checkpoint": "best" if (folder / "checkpoints" / "best.ckpt").exists() else "last",
        "split": "test" if cfg.test else "val",
        "accelerator": "cpu" if cfg.trainer.accelerator == "cpu" else "auto",
        "progress": bool(cfg.trainer.enable_progress_bar),
        **({"allow": own} if (own := own_modules(cfg)) else {}),
    }
    with called("generate", settings | _wanted(cfg)[what]) as command:
        check_overrides(command, "generate")
        yield command
