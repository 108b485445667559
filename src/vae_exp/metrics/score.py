"""Scores runs: what `python -m vae_exp.evaluate` does."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.metrics.collapse import unused_latents
from vae_exp.metrics.table import tables
from vae_exp.records import read_evaluation
from vae_exp.runs.build import bound
from vae_exp.runs.checkpoint import checkpoint
from vae_exp.runs.folder import fingerprint, write_json
from vae_exp.runs.trained import Trained, each_run

__all__ = ["ABOUT", "Metric", "chosen", "score", "score_runs"]

# The keys of an evaluation that are not numbers.
ABOUT = ("split", "num_images", "checkpoint", "weights", "bound", "data", "settings", "headline", "refused")
log = logging.getLogger("vae_exp")


class Metric(NamedTuple):
    """A metric, as a file of `conf/metrics/` describes it."""

    function: Callable[..., dict[str, Any]]  # (trained, options) -> numbers by name
    options: dict[str, Any]
    headline: dict[str, str]  # numbers for the top of the report, with their units


class _RunNeededError(BaseException):
    """Raised when a metric uses the run: by then it has accepted its options."""


class _NoRun:
    def __getattr__(self, name: str) -> Any:
        raise _RunNeededError


def score_runs(cfg: DictConfig) -> dict[Path, dict[str, Any]]:
    """Scores every run of `cfg.run` and prints the numbers; for several runs, in tables with one row for each run.

    Arguments:
        cfg: A config with the keys of `conf/evaluate.yaml`.

    Returns:
        The numbers of each run, as `score` gives them.

    Raises:
        ConfigError: If an option is out of its range, there is no such run, or one cannot be scored.
    """
    metrics = chosen(cfg)
    results: dict[Path, tuple[dict[str, Any], dict[str, Any]]] = {}

    def work(trained: Trained) -> None:
        started = time.time()
        numbers = score(trained, metrics, leave_out=cfg.get("metrics") == "all")
        results[trained.folder] = about(trained), numbers
        if "wandb" in cfg.logger:
            pictures = [file for file in (trained.folder / "images").glob("*.png") if file.stat().st_mtime >= started]
            trained.log_wandb({f"{trained.split}/{name}": value for name, value in numbers.items()}, sorted(pictures))

    try:
        each_run(cfg, work)
    finally:
        for line in tables(results):  # the runs that were scored, even if others failed
            log.info(line)
    return {folder: numbers for folder, (_, numbers) in results.items()}


def chosen(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of a config by name: each block with a function under `metric`. Their options are checked.

    Before anything is computed, each function is called without a run. It either refuses its options, or it uses the
    run, which ends the call. So a wrong option of one metric is found before an hour is spent on another metric.

    Raises:
        ConfigError: If no metric is chosen, there is no such function, or it refuses its options.
    """
    metrics = {}
    for name in cfg:
        node = None if OmegaConf.is_missing(cfg, name) else cfg[name]
        if not isinstance(node, DictConfig) or "metric" not in node:
            continue
        block: dict[Any, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
        options = {key: value for key, value in block.items() if key not in ("metric", "headline")}
        try:
            metrics[str(name)] = metric = Metric(get_method(block["metric"]), options, block.get("headline", {}))
            metric.function(_NoRun(), **options)
        except _RunNeededError:
            pass
        except (ConfigError, ImportError, TypeError, ValueError) as error:
            is_key = str(error).partition("=")[0] in options
            raise ConfigError(f"{name!s}{'.' if is_key else ': '}{error}") from error
    if not metrics:
        raise ConfigError("metrics=[]: nothing to compute, choose all, or a list of metrics (see --help)")
    return metrics


def score(trained: Trained, metrics: dict[str, Metric], leave_out: bool = False) -> dict[str, Any]:
    """Scores a split and writes the numbers to `evaluation.json` in the run folder (`evaluation_val.json`, ...).

    Numbers of other metrics that are already in the file stay there if they are of the same weights and images.

    Arguments:
        trained: The run.
        metrics: The metrics by name, as `chosen` gives them.
        leave_out: Whether to leave out a metric that has no meaning for the run; the reason is written to the file.

    Returns:
        Numbers by name, in nats per image unless the metric says otherwise.

    Raises:
        NoMeaningError: If a metric has no meaning for the run.
    """
    facts = about(trained)
    path = trained.folder / ("evaluation.json" if trained.split == "test" else f"evaluation_{trained.split}.json")
    earlier = read_evaluation(path)
    if any(earlier.get(key) != facts[key] for key in ("weights", "data")):
        earlier = {}
    settings, headline = earlier.get("settings", {}), earlier.get("headline", {})
    refused = {name: why for name, why in earlier.get("refused", {}).items() if name not in metrics}
    numbers: dict[str, Any] = {}
    for name, metric in metrics.items():
        trained.reseed(name)
        try:
            numbers |= metric.function(trained, **metric.options)
        except NoMeaningError as error:
            if not leave_out:
                raise
            refused[name] = str(error)
        # The file can hold numbers of several calls, so the options of each metric are written with them.
        settings[name] = {"seed": trained.seed, **metric.options}
        headline |= metric.headline
        # Write after each metric, so that an interruption of the next one loses nothing.
        beside = {"settings": settings, "headline": headline, "refused": refused}
        write_json(path, {**earlier, **facts, **numbers, **beside})
    for name in [name for name in metrics if name in refused]:
        log.info("no %s: %s", name, refused[name])
    log.info("written to %s", path)
    known = {f"{trained.split}/{name}": value for name, value in {**earlier, **numbers}.items()}
    if warning := unused_latents(trained.cfg, known, trained.record.get("steps")):
        log.warning(warning)
    return numbers


def about(trained: Trained) -> dict[str, Any]:
    """What the numbers describe: the images, the weights, and what a bound bounds."""
    trained.setup(trained.split)
    weights = checkpoint(trained.folder, trained.checkpoint)
    return {
        "split": trained.split,
        "num_images": trained.num_images(),
        "checkpoint": weights.name,
        "weights": fingerprint(weights),
        "bound": bound(trained.model, trained.data),
        "data": {trained.split: trained.data.checksums[trained.split]},
    }
