"""The weights that a run starts from, those of another run, and those that do not change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_exp.config import ConfigError
from vae_exp.models import VAE
from vae_exp.runs.checkpoint import checkpoint, load_checkpoint, load_weights

__all__ = ["load_parts", "start_weights"]


def start_weights(cfg: DictConfig, model: VAE, is_new: bool) -> None:
    """Loads what `init_from` names into the model of a new run, and freezes what `freeze` names in that of any run.

    Raises:
        ConfigError: If a part does not exist or does not fit.
    """
    parts, frozen = _names(cfg, "init_from_parts"), _names(cfg, "freeze")
    if parts and not cfg.init_from:
        raise ConfigError(f"init_from_parts={parts}: from which run? Set init_from=RUN, a run folder")
    if cfg.init_from and not parts and (init := cfg.get("init")):
        raise ConfigError(
            f"init._target_={init['_target_']}: all weights start from init_from={cfg.init_from}; "
            "set init=default, or init_from_parts=[encoder]"
        )
    if cfg.init_from and is_new:
        path = checkpoint(cfg.init_from, "best")
        load_parts(model, path, parts) if parts else load_weights(model, path)
    if frozen:
        model.hold(list(frozen))


def load_parts(model: VAE, path: Path, parts: Mapping[str, str] | Sequence[str]) -> None:
    """Loads weights of some parts of another model; the other parts stay as they are.

    Arguments:
        model: What gets the weights.
        path: A checkpoint, of a model that may have other parts besides.
        parts: Names of parts, `[encoder]`; or, by the name of a part, that of the other model's whose weights it gets.

    Raises:
        ConfigError: If one of the models has no such part, the two differ, or the file is damaged.
    """
    state = load_checkpoint(path)["state_dict"]
    pairs = parts if isinstance(parts, Mapping) else {name: name for name in parts}
    for name, other in pairs.items():
        module = model.part("init_from_parts", name)
        weights = {key.removeprefix(f"{other}."): value for key, value in state.items() if key.startswith(f"{other}.")}
        if not weights:
            known = sorted({key.partition(".")[0] for key in state if "." in key})
            raise ConfigError(f"init_from_parts={other}: the parts that have weights in {path} are {', '.join(known)}")
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            reason = "\n".join(line.strip() for line in str(error).splitlines()[1:4])
            raise ConfigError(f"init_from_parts: {name} differs from {other} in {path}: {reason}") from error
        model.started.append(module)


def _names(cfg: DictConfig, key: str) -> dict[str, str] | list[str]:
    """Names of parts; configs of earlier runs have no such key."""
    value = cfg.get(key)
    names: Any = OmegaConf.to_container(value) if OmegaConf.is_config(value) else [] if value is None else [value]
    are_names = all(isinstance(name, str) for name in [*names, *(names.values() if isinstance(names, dict) else ())])
    if not are_names or (key == "freeze" and isinstance(names, dict)):
        raise ConfigError(f"{key}={value}: names of parts are needed, such as [encoder]")
    return names
