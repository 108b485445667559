"""Overrides: `key=value` as the command line has them, checked, and quoted where we print them."""

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import CONF, ConfigError, options

__all__ = ["OF_SWEEPS", "check_overrides", "choices", "is_metric", "nearest", "override", "quoted"]

MANY_TYPES = (
    "trainer.devices",  # 2, [0, 1], auto
    "trainer.deterministic",  # true, warn
    "trainer.val_check_interval",  # 0.5 of an epoch, 100 batches
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val", "test")),  # likewise
    "data.levels",  # 256, unit
)

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
        ConfigError: For a value of another type, and for a new key that nothing reads.
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
        if typed not in groups and not typed.is_delete() and key not in MANY_TYPES:
            _check_value(key, OmegaConf.select(cfg, key), OmegaConf.select(defaults, key))


@cache  # the jobs of a sweep ask for the same few
def _composed(config_name: str, words: tuple[str, ...], sources: str) -> DictConfig:
    """What the words of groups choose from the config files of these sources."""
    return compose(config_name, overrides=list(words))


def _check_value(key: str, given: Any, default: Any) -> None:
    if isinstance(default, DictConfig) and isinstance(given, str | int | float):
        both = f"\nBoth are metrics: choose metrics=[{key},{given}]" if is_metric(str(given)) else ""
        raise ConfigError(f"{key}={given}: {key} is no single value but has keys, which --cfg job shows{both}")
    kind = _needed(default)
    if given is not None and kind is not None and not isinstance(given, kind[0]):
        raise ConfigError(f"{key}={given}: {kind[1]} is needed; the default is {default}")


def _check_search_path(hydra: HydraConf) -> None:
    """Refuses a file on `hydra.searchpath` whose name one of ours has: Hydra would read ours, and say nothing."""
    for source in hydra.runtime.config_sources:
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
