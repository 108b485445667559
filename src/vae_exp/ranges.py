"""Which values the keys of `conf/` may have, by the last word of the key. Imports nothing heavy."""

import re
from collections.abc import Callable, Collection, Iterator
from math import inf, isfinite
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_exp.config import ConfigError

__all__ = ["RANGES", "check_ranges", "shown"]

# The classes of these packages read the keys as it is said here; a class of the user's own may read them differently.
OURS = ("vae_exp.", "pytorch_lightning.", "torch.optim.")


class Range(NamedTuple):
    """The values that a key may have, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _whole(least: int, most: int = 2**31 - 1, words: str = "") -> Range:
    words = words or f"a whole number from {least} to {most} is needed"
    return Range(words, lambda value: _is_number(value) and isinstance(value, int) and least <= value <= most)


def _number(least: float = -inf, most: float = inf) -> Range:
    words = f"a number from {least} to {most}" if most < inf else f"a number of at least {least}"
    words = words if least > -inf else "a finite number"
    return Range(f"{words} is needed", lambda value: _is_number(value) and least <= value <= most)


def _or_null(of: Range) -> Range:
    return Range(f"{of.words}, or null", lambda value: value is None or of.holds(value))


def _list(each: Range, words: str, length: int | None = None) -> Range:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and len(value) in (length, length or len(value)) and all(map(each.holds, value))

    return Range(words, holds)


def _one_of(*words: str) -> Range:
    return Range(f"choose one of {', '.join(words)}", words.__contains__)


COUNT = _whole(1)
INDEX = _whole(0)
WIDTHS = _list(COUNT, "a list of whole numbers from 1 on is needed, such as [500, 200]")
PAIRS = _list(_list(INDEX, "", 2), "a list of pairs is needed, such as [[0, 1], [2, 3]]")
PATH = Range("a path is needed; one called 3 is ./3", lambda value: isinstance(value, str) and bool(value.strip()))
ENDLESS = Range("a whole number from 1 on is needed, or -1 for no limit", lambda v: COUNT.holds(v) or v == -1)
NAMES = _list(Range("", lambda value: isinstance(value, str)), "")
FILES = _list(PATH, "a file is needed, or a list [a.png,b.png]; one called 3 is ./3")
ABOVE_ZERO = Range("a number above 0 is needed", lambda value: _is_number(value) and value > 0)
COLUMN = Range(
    "the name of a column is needed, a list of names, or null",
    lambda value: value is None or isinstance(value, str) or (isinstance(value, list) and NAMES.holds(value)),
)
WORDS: dict[Range, str] = {
    COUNT: (
        "latent_dim num_samples num_groups batch_size eval_batch_size out_features blocks components pseudo_inputs "
        "transforms categories params_per_pixel features in_features classifier_features log_every_n_steps "
        "accumulate_grad_batches every_n_epochs num_train neighbours chains num_chains temperatures leapfrog "
        "transitions updates num_latents nll_images repeats num_points num_dims num_steps steps period trials size "
        "timeout_min "
        "cpus_per_task num_nodes"
    ),
    _or_null(COUNT): (
        "every num_classes train_size train_limit every_n_steps num_images jobs check_val_every_n_epoch labelled "
        "labelled_per_batch"
    ),
    Range(WIDTHS.words, lambda value: COUNT.holds(value) or WIDTHS.holds(value)): "hidden",  # one, of conv decoders
    _list(COUNT, "a list of whole numbers from 1 on is needed, such as [100, 1000]"): "at_steps",
    WIDTHS: "channels upper_dims hidden_features",
    _list(
        COUNT, "three whole numbers from 1 on are needed, [channels, height, width]: images, no volumes", 3
    ): "image_shape",
    _list(INDEX, "two numbers of latents are needed, such as [0, 1]", 2): "dims",
    _list(_number(), "a list of numbers is needed, such as [-1.0, 0.0, 1.0]"): "strengths values",
    _list(_number(0, 1), "two numbers from 0 to 1 are needed, such as [0.9, 0.999]", 2): "betas",
    _or_null(PAIRS): "pairs",
    _whole(0, 2**32 - 1, "a whole number from 0 to 2^32 - 1 is needed"): "seed train_seed",
    Range("choose true, false or warn", lambda value: isinstance(value, bool) or value == "warn"): "deterministic",
    Range(
        "choose best, last, or step_N of callbacks.snapshots.at_steps=[N]",
        lambda value: isinstance(value, str) and re.fullmatch(r"best|last|step_\d+", value) is not None,
    ): "checkpoint",
    _one_of("test", "val", "train"): "split",
    _one_of("step", "epoch", "seconds"): "axis",
    INDEX: "fold patience workers image source target burn_in gpus_per_node",
    _or_null(_whole(2)): "folds",
    _or_null(INDEX): "val_size test_size label context_dim",
    _whole(-1): "num_sanity_val_steps",
    ENDLESS: "max_steps",
    _or_null(ENDLESS): "max_epochs",
    _or_null(ABOVE_ZERO): "limit_train_batches val_check_interval min_scale max_scale weight_prior",
    _or_null(_number(0)): ("gradient_clip_val limit_val_batches limit_test_batches overfit_batches diagonal"),
    _number(0): (
        "lr weight_decay eps lr_decay momentum initial_accumulator_value beta gamma off_diagonal free weight "
        "threshold gpus tolerance"
    ),
    _number(0, 1): "share rise acceptance",
    _or_null(Range(FILES.words, lambda value: PATH.holds(value) or (FILES.holds(value) and bool(value)))): "input",
    Range("a number above 0 is needed", lambda value: _is_number(value) and value > 0): (
        "std min_concentration max_concentration scale init_scale noise temperature step_size cpus mem_gb"
    ),
    _number(): "then alpha start end value",
    _or_null(Range("a number above 0 is needed", lambda value: _is_number(value) and value > 0)): "minutes",
    _or_null(PATH): "root path resume init_from data_root against inception out cells folder",
}
# Whose keys are columns of a table, or attributes; whose values are several, as the command line lists them.
NOT_HELD = ("data.source.kinds.", "label.", "sweep.grid.")
RANGES = {word: range_ for range_, words in WORDS.items() for word in words.split()}

BY_KEY = {
    "data.scale": _one_of("none", "standardize", "range"),
    "data.source.label": COLUMN,
}  # whose last word means something else elsewhere


def check_ranges(cfg: DictConfig, typed: Collection[str]) -> None:
    """Holds each value of a config against the range of its key.

    Arguments:
        cfg: The config.
        typed: Keys whose value is held against it if it is an interpolation, too; others refer to what is checked.

    Raises:
        ConfigError: For the first that lies outside; the message names the key and what is needed.
    """
    for key, value in _values(cfg, typed, "", is_ours=True):
        if key.startswith(NOT_HELD):
            continue
        allowed = BY_KEY.get(key) or RANGES.get(key.rpartition(".")[2])
        if allowed and not allowed.holds(value):
            raise ConfigError(f"{key}={shown(value)}: {allowed.words}")


def _values(node: DictConfig, typed: Collection[str], prefix: str, is_ours: bool) -> Iterator[tuple[str, Any]]:
    """Keys and values that lie in `RANGES`, except those of the classes of others."""
    for reader in ("_target_", "metric", "what"):
        if reader in node and isinstance(function := node[reader], str):
            is_ours = function.startswith(OURS)
    for name in node:
        child, key = node._get_node(name), f"{prefix}{name!s}"
        if isinstance(child, DictConfig) and not child._is_none() and not OmegaConf.is_missing(node, name):
            # A reference to another node is checked there.
            yield from () if OmegaConf.is_interpolation(node, str(name)) else _values(child, typed, f"{key}.", is_ours)
        elif (
            is_ours
            and name in RANGES
            and not OmegaConf.is_missing(node, name)
            and (key in typed or not OmegaConf.is_interpolation(node, str(name)))
        ):
            value = node[name]
            if not isinstance(value, DictConfig):
                yield key, OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


def shown(value: Any) -> str:
    """A value as the command line has it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
