"""The config in a run folder. It may be somebody else's: what it may hold is data, which takes no time to read."""

import json
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_exp.records import DamagedError

__all__ = ["LONGEST", "check_text", "digest", "read_config"]

LONGEST, MOST, DEEPEST = 200_000, 10_000, 40  # letters, nodes and levels of a config; ours have 6,000, 300 and 5
LATER = ("${run_dir:}", "${run_id:}", "${first_step:}")  # what a saved config leaves open, see `known_run`
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
GROUPS = (
    "model", "data", "encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "corruption",
    "trainer",
)  # fmt: skip


def check_text(text: str) -> None:
    """Reads the events of yaml, which takes as long as the text is, and composes nothing.

    Raises:
        ValueError: If there is what the config of a run never has: an anchor, an alias, a tag, `${`, a second document,
            or more than a config needs.
        yaml.YAMLError: If it is no yaml.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} letters")
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if getattr(event, "anchor", None) is not None or isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an anchor or an alias (& or *)")
        if getattr(event, "tag", None) is not None:
            raise ValueError("it has a tag (!)")
        if number > MOST or depth > DEEPEST or documents > 1:
            raise ValueError("it has more nodes, levels or documents than a config")
        if isinstance(event, yaml.ScalarEvent) and "${" in _without_later(event.value):
            raise ValueError(f"it has an interpolation, {event.value[:60]!r}, and a saved config is resolved")


def _without_later(text: str) -> str:
    for word in LATER:
        text = text.replace(word, "")
    return text


def read_config(path: Path) -> DictConfig:
    """The config of a run.

    Raises:
        DamagedError: If it cannot be read, holds more than data, or lacks a group.
    """
    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST).decode()
        check_text(text)
        cfg = OmegaConf.load(StringIO(text))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path} cannot be used: {reason}") from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise DamagedError(f"{path} cannot be used: it is empty, or a list")
    wrong = [key for key in GROUPS if not isinstance(_value(cfg, key), DictConfig)]
    wrong += [key for key in ("latent_dim", "seed") if not isinstance(_value(cfg, key), int)]
    wrong += [key for key in ("callbacks", "logger") if not isinstance(_value(cfg, key), DictConfig | None)]
    if wrong:
        raise DamagedError(f"{path} cannot be used: {', '.join(wrong)} missing, or of another type")
    return cfg


def _value(cfg: DictConfig, key: str) -> Any:
    return None if OmegaConf.is_missing(cfg, key) else cfg.get(key)


def digest(cfg: DictConfig) -> str:
    """By which a job knows the config that a sweep, or the first process of a run, wrote for it."""
    content: Any = OmegaConf.to_container(cfg)
    content.pop("resume", None)  # `train` writes the folder itself there
    content.get("data", {}).pop("root", None)  # and makes this absolute
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
