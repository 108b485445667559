"""Overrides: `key=value` as the command line has them, checked, and quoted where we print them."""

import re
import shlex
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_exp.config import CONF, ConfigError, options
from vae_exp.ranges import check_ranges, shown

__all__ = ["OF_SWEEPS", "check_overrides", "choices", "is_metric", "nearest", "override", "quoted"]

MANY_TYPES = (
    "trainer.devices",  # 2, [0, 1], auto
    "trainer.deterministic",  # true, warn
    "trainer.val_check_interval",  # 0.5 of an epoch, 100 batches
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val", "test")),  # likewise
    "data.levels",  # 256, unit
    "data.source.label",  # shape, [shape, scale]
)

SEVERAL = ("run", "input", "metrics", "what")  # one word or a list
LEFT_OUT_WITH_NULL = ("callbacks", "logger", "experiment")

OF_SWEEPS = ("launcher", "sweep")  # groups that say nothing of a single run
BRING_KEYS = ("what", "metrics")  # groups whose options have keys of their own at the top of the config


def override(key: str, value: object) -> str:
    """`key=value` as it can be pasted: quoted for Hydra, and then for the shell, where they need it."""
    word = f"{key}={quoted(value)}"
    if not word.endswith("'"):
        return word
    return shlex.quote(word) if re.search(r'["$`!\\]', word) else f'"{word}"'


def quoted(value: object) -> str:
    """A value as Hydra reads it back: within quotes where it needs them."""
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text, re.ASCII):
        return text
    # Within Hydra's quotes a backslash is itself, but for those before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def choices(hydra: HydraConf) -> dict[str, str]:
    """The chosen option of each group of a run, without those that are no part of it: of sweeps and of this machine."""
    chosen = {group: name for group, name in hydra.runtime.choices.items() if name and "/" not in group}
    return {group: name for group, name in chosen.items() if group not in (*OF_SWEEPS, "local")}


def check_overrides(cfg: DictConfig, config_name: str) -> None:
    """Holds each value set on the command line against its default.

    Raises:
        ConfigError: For a value of another type or out of its range, a new key that nothing reads, and a secret.
    """
    hydra = HydraConfig.get()
    _check_search_path(hydra)
    overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    groups = [o for o in overrides if o.key_or_group in (*hydra.runtime.choices, *BRING_KEYS)]
    sources = str(hydra.runtime.config_sources)
    defaults = _composed(config_name, tuple(o.input_line or "" for o in groups), sources)
    known = _composed(config_name, tuple(o.input_line or "" for o in groups if o.key_or_group in BRING_KEYS), sources)
    names = [*known, *hydra.runtime.choices]
    for key in cfg:
        if key not in names:
            raise ConfigError(f"nothing reads {key!s}{nearest(str(key), map(str, names))}")
    for typed in overrides:
        key = typed.key_or_group
        given = OmegaConf.select(cfg, key)
        if key in MANY_TYPES and isinstance(given, DictConfig):
            raise ConfigError(f"{key}={shown(given)}: it has no keys; the default is {OmegaConf.select(defaults, key)}")
        if typed not in groups and not typed.is_delete() and key not in MANY_TYPES:
            _check_value(key, given, OmegaConf.select(defaults, key))
    check_ranges(cfg, {typed.key_or_group for typed in overrides})
    _check_secrets(cfg)


@cache  # the jobs of a sweep ask for the same few
def _composed(config_name: str, words: tuple[str, ...], sources: str) -> DictConfig:
    """What the words of groups choose from the config files of these sources."""
    return compose(config_name, overrides=list(words))


def _check_value(key: str, given: Any, default: Any) -> None:
    if isinstance(default, DictConfig) and isinstance(given, str | int | float):
        both = f"\nBoth are metrics: choose metrics=[{key},{given}]" if is_metric(str(given)) else ""
        raise ConfigError(f"{key}={given}: {key} is no single value but has keys, which --cfg job shows{both}")
    if isinstance(default, DictConfig) and given is None and not key.startswith(LEFT_OUT_WITH_NULL):
        raise ConfigError(f"{key}=null: {key} cannot be left out; it has keys, which --cfg job shows")
    is_several = isinstance(given, ListConfig) or (isinstance(given, DictConfig) and "_target_" not in given)
    if isinstance(default, str | int | float) and is_several and key not in SEVERAL:
        raise ConfigError(f"{key}={given}: one value is needed; the default is {default}")
    kind = _needed(default)
    is_kind = kind is None or (isinstance(given, kind[0]) and (kind[0] is bool or not isinstance(given, bool)))
    # Whether a number may be null, its range says.
    if (
        kind is not None
        and not is_kind
        and not isinstance(given, DictConfig)
        and (given is not None or kind[0] is bool)
    ):
        raise ConfigError(f"{key}={shown(given)}: {kind[1]} is needed; the default is {shown(default)}")


def _check_secrets(cfg: DictConfig) -> None:
    """Refuses a password in an address, and the key of an account: all of the config stands in files and reports."""
    for key, value in _texts(OmegaConf.to_container(cfg, resolve=False), ""):
        if re.search(r"://[^/\s@]*:[^/\s@]+@", value):
            raise ConfigError(
                f"{key}: the password in this address would stand in config.yaml and in reports; leave it out.\n"
                "Ways out for MLflow: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment, or\n"
                "MLFLOW_TRACKING_URI there and logger.mlflow.tracking_uri=null"
            )
        if secret := re.search(r"\$\{oc\.env:\s*(\w*(?:KEY|TOKEN|SECRET|PASSWORD)\w*)", value, re.IGNORECASE):
            raise ConfigError(
                f"{key}: the value of {secret[1]} would stand in config.yaml and in reports; leave it out"
            )


def _texts(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Every text in a config, with its key."""
    if isinstance(node, str):
        yield prefix, node
    for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _texts(child, f"{prefix}.{name}" if prefix else str(name))


def _check_search_path(hydra: HydraConf) -> None:
    """Refuses a file on `hydra.searchpath` whose name one of ours has: Hydra would read ours, and say nothing."""
    for source in hydra.runtime.config_sources:
        if (
            source.provider.startswith("hydra.searchpath")
            and source.schema == "file"
            and not Path(source.path).is_dir()
        ):
            raise ConfigError(f"hydra.searchpath: there is no folder {source.path}")
        if source.provider.startswith("hydra.searchpath") and source.schema == "file":
            for file in sorted(Path(source.path).rglob("*.yaml")):
                if (Path(CONF) / file.relative_to(source.path)).exists():
                    raise ConfigError(
                        f"{file}: vae_exp has a file of this name, which is read before those on hydra.searchpath.\n"
                        f"Ways out: --config-dir {source.path}, which is read first; or another name"
                    )


def _needed(default: Any) -> tuple[type | tuple[type, ...], str] | None:
    """The type that replaces a default, and its name; None where any may."""
    if isinstance(default, bool):
        return bool, "true or false"
    if isinstance(default, int):
        return int, "a whole number"
    if isinstance(default, float):
        return (int, float), "a number"
    return None


def is_metric(name: str) -> bool:
    """Whether `metrics/` has a file of this name, in `conf/` or in the user's own folder."""
    return name in options("metrics")


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the known word that is most like the given one; empty where none is."""
    close = get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
