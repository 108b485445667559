"""`python -m vae_exp.evaluate run=outputs/...`: scores runs from their folders."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_exp.cli import check_overrides, run_command
from vae_exp.config import ConfigError, NoMeaningError

if TYPE_CHECKING:
    from vae_exp.runs.trained import Trained

log = logging.getLogger("vae_exp")

# The least of the numbers among the options where it is not 1: errors, steps between two ends and neighbours need more.
LEAST = {
    "latents.threshold": 0,
    "amortisation.lr": 0,
    "ais.chains": 2,
    "ais.temperatures": 2,
    "latents.num_latents": 2,
    "amortisation.num_images": 2,
    "quality.num_images": 10,
}


def _evaluate(cfg: DictConfig) -> None:
    check_overrides(cfg, "evaluate")
    evaluate_runs(cfg)


def evaluate_runs(cfg: DictConfig) -> dict[Path, dict[str, Any]]:
    """Scores every run of `cfg.run` and prints their numbers, of several a table with one row a run.

    Arguments:
        cfg: As `conf/evaluate.yaml`.

    Returns:
        The numbers of each, as `evaluate` gives them.

    Raises:
        ConfigError: If an option is out of its range, there is no such run, or one cannot be scored.
    """
    _check_options(cfg)
    # Torch is imported when the request is known to be sound.
    from vae_exp.runs.trained import each_run

    results: dict[Path, dict[str, Any]] = {}

    def work(trained: "Trained") -> None:
        results[trained.folder] = evaluate(trained, cfg)

    try:
        each_run(cfg, work)
    finally:
        _print(results, cfg.split)  # those that were scored, if others failed
    return results


def evaluate(trained: "Trained", cfg: DictConfig) -> dict[str, Any]:
    """Scores a split and writes the numbers to `evaluation.json` in the run folder (`evaluation_val.json`, ...).

    Numbers of the same weights and images that the file holds already, of other metrics, stay there.

    Arguments:
        trained: The run.
        cfg: As `conf/evaluate.yaml`.

    Returns:
        Numbers by name, in nats per image unless said otherwise.

    Raises:
        ConfigError: If a metric that was asked for by name has no meaning for the run.
    """
    from vae_exp.runs.build import bound
    from vae_exp.runs.folder import checkpoint, fingerprint, write_json

    metrics = _metrics(cfg)
    chosen = list(metrics) if cfg.metrics == "all" else cfg.metrics
    chosen = list(chosen) if isinstance(chosen, list | ListConfig) else [chosen]
    unknown = [name for name in chosen if name not in metrics]
    if unknown:
        raise ConfigError(f"metrics={unknown[0]}: choose all, or a list of {', '.join(metrics)}")
    if "nll" in chosen and "ais" in metrics:
        chosen = list(dict.fromkeys([*chosen, "ais"]))
    trained.setup(trained.split)
    weights = checkpoint(trained.folder, trained.checkpoint)
    path = trained.folder / ("evaluation.json" if trained.split == "test" else f"evaluation_{trained.split}.json")
    what = {
        "split": trained.split,
        "num_images": trained.num_images(),
        "checkpoint": weights.name,
        "weights": fingerprint(weights),
        "bound": bound(trained.model, trained.data),
        "data": {trained.split: trained.data.checksums[trained.split]},
    }
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if any(earlier.get(key) != what[key] for key in ("weights", "data")):
        earlier = {}
    numbers: dict[str, Any] = {}
    settings, started = earlier.get("settings", {}), time.time()
    refused = {name: why for name, why in earlier.get("refused", {}).items() if name not in chosen}
    for name in chosen:
        trained.reseed(name)
        try:
            numbers |= metrics[name](trained)
        except NoMeaningError as error:
            if cfg.metrics != "all":
                raise
            refused[name] = str(error)
        # Numbers of several calls stand side by side: each metric with what it was asked for.
        block = OmegaConf.to_container(cfg[name]) if isinstance(cfg.get(name), DictConfig) else {}
        settings[name] = {"seed": cfg.seed, "num_samples": cfg.num_samples, **block}  # type: ignore[dict-item]
        # After each: what was computed is kept if the next one is interrupted.
        write_json(path, {**earlier, **what, **numbers, "settings": settings, "refused": refused})
    if "wandb" in cfg.logger:
        pictures = [file for file in (trained.folder / "images").glob("*.png") if file.stat().st_mtime >= started]
        trained.log_wandb({f"{trained.split}/{name}": value for name, value in numbers.items()}, sorted(pictures))
    for name in [name for name in chosen if name in refused]:
        log.info("no %s: %s", name, refused[name])
    log.info("written to %s", path)
    return numbers


def _metrics(cfg: DictConfig) -> "dict[str, Callable[[Trained], dict[str, Any]]]":
    from vae_exp.metrics.ais import ais
    from vae_exp.metrics.amortisation import amortisation
    from vae_exp.metrics.elbo import elbo, train_gap
    from vae_exp.metrics.factors import factors
    from vae_exp.metrics.labels import labels
    from vae_exp.metrics.latents import latents
    from vae_exp.metrics.nll import nll
    from vae_exp.metrics.quality import quality

    if cfg.nll not in ("is", "ais"):
        raise ConfigError(f"nll={cfg.nll}: choose is (importance sampling), or ais to anneal some images beside it")
    return {
        "elbo": elbo,
        "train_gap": train_gap,
        "nll": lambda trained: nll(trained, cfg.num_samples),
        **({"ais": lambda trained: ais(trained, cfg.num_samples, **cfg.ais)} if cfg.nll == "ais" else {}),
        "latents": lambda trained: latents(trained, **cfg.latents, num_samples=cfg.num_samples),
        "amortisation": lambda trained: amortisation(trained, **cfg.amortisation, num_samples=cfg.num_samples),
        "labels": lambda trained: labels(trained, **cfg.labels),
        "quality": lambda trained: quality(trained, **cfg.quality),
        "factors": lambda trained: factors(trained, **cfg.factors),
    }


def _check_options(cfg: DictConfig) -> None:
    """Before anything is computed: what one metric took an hour for is not followed by the refusal of the next."""
    blocks = {name: block for name, block in cfg.items() if isinstance(block, DictConfig) and name != "logger"}
    options = {f"{name!s}.{key!s}": value for name, block in blocks.items() for key, value in block.items()}
    for key, value in {"num_samples": cfg.num_samples, **options}.items():
        if value is None and key != "quality.inception":
            raise ConfigError(f"{key}=null: a value is needed")
        if isinstance(value, int | float) and value < LEAST.get(key, 1):
            raise ConfigError(f"{key}={value}: at least {LEAST.get(key, 1)} is needed")
    if cfg.amortisation.lr == 0:
        raise ConfigError("amortisation.lr=0: nothing would be refined, a learning rate is positive")


def _print(results: dict[Path, dict[str, Any]], split: str) -> None:
    """A line for each number of a run; of several runs a row each."""
    names = dict.fromkeys(name for numbers in results.values() for name in numbers if "_se_" not in name)
    columns = {name: [_text(numbers, name) for numbers in results.values()] for name in names}
    columns = {f"{split}/{name}": column for name, column in columns.items() if any(column)}
    if len(results) == 1:
        rows = [[name, value] for name, (value,) in columns.items()]
    else:
        columns = {"run": list(map(str, results)), **columns} if results else {}
        rows = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if any("±" in text for row in rows for text in row):
        log.info("elbo, recon, kl, nll and gaps in nats per image; ± standard error over images ± over latents")
    for row in rows if columns else []:
        log.info("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    for folder, numbers in results.items():
        if "verdict" in numbers:
            log.info("%s%s", f"{folder}: " if len(results) > 1 else "", numbers["verdict"])


def _text(numbers: dict[str, Any], name: str) -> str:
    """A number with its errors; nothing for what is no number, or counts what another one is of."""
    value = numbers.get(name)
    is_count = isinstance(value, int) and name != "active_units"
    if is_count or not isinstance(value, int | float):
        return ""
    errors = [numbers.get(f"{name}_se_{over}") for over in ("images", "draws")]
    text = f"{value}" if isinstance(value, int) else f"{value:.3f}"
    return text + "".join(f" ± {error:.3f}" for error in errors if error is not None)


def main() -> None:
    """Entry point of `python -m vae_exp.evaluate`."""
    run_command(_evaluate, "evaluate")


if __name__ == "__main__":
    main()
