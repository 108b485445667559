"""Trains one model from a config, in a run folder of its own."""

import logging
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from vae_exp.config import ConfigError
from vae_exp.ledger import NonFiniteError
from vae_exp.loggers import CSV
from vae_exp.metrics.collapse import unused_latents
from vae_exp.overrides import override
from vae_exp.page.pictures import fill_in
from vae_exp.page.write import write_page
from vae_exp.runs.build import bound, build, check_values, make, prepare
from vae_exp.runs.folder import checkpoint, load_checkpoint, load_config, load_weights, resumed_config
from vae_exp.runs.record import Record
from vae_exp.runs.trained import of_training
from vae_exp.training.trainer import make_trainer

__all__ = ["train", "train_job", "train_rank"]

# What changes no number of an experiment beyond its tolerance, which is over seeds.
UNCHANGED = ("experiment", "resume", "seed", "name", "report", "data.root", "trainer.enable_progress_bar", "expected")

log = logging.getLogger("vae_exp")


def train_job(cfg: DictConfig) -> float | None:
    """Trains what the command line asked for; returns the monitored metric, for sweepers that optimise."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if cfg.resume:
        cfg, folder = resumed_config(cfg, hydra), Path(cfg.resume).resolve()
    elif (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder} holds a run already: {override('resume', folder)} continues it, another hydra.run.dir starts one"
        )
    if OmegaConf.is_dict(cfg.expected) and not all(map(_is_as_expected, hydra.overrides.task)):
        cfg.expected = None  # of the experiment as it is
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    return train(OmegaConf.create(resolved), folder).get(f"best/{cfg.monitor}")


def _is_as_expected(word: str) -> bool:
    """Whether an override leaves the numbers of an experiment where they are, within their tolerance."""
    key = word.lstrip("+~").partition("=")[0]
    return key in UNCHANGED or key.partition(".")[0] in ("hydra", "logger")


def train_rank(folder: Path) -> None:
    """Takes part in the run of `folder` as one of the processes that DDP starts; the first one reports errors."""
    try:
        train(load_config(folder), folder)
    except ConfigError as error:
        raise SystemExit(2) from error


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Trains a model.

    Arguments:
        cfg: A resolved config. With `resume` set, `folder` holds a run that is continued.
        folder: The run folder.

    Returns:
        The last value of every metric, those of the test split among them, and the best of the monitored one as
        `best/...`; nats per image.

    Raises:
        ConfigError: If the config is wrong, data are missing or corrupt, or a loss is no number.
    """
    check_values(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    model, data = build(cfg)
    if cfg.init_from and not cfg.resume:
        load_weights(model, checkpoint(cfg.init_from, "best"))
    last = checkpoint(folder, "last") if cfg.resume else None
    trainer = make_trainer(cfg, folder)
    record = None
    is_zero = trainer.is_global_zero
    if is_zero:
        # Before the run begins: missing files are the first thing a user hears of, not the last.
        prepare(data, trainer.world_size)
        folder.mkdir(parents=True, exist_ok=True)
        cfg.data.root = str(Path(cfg.data.root).resolve())
        OmegaConf.save(cfg, folder / "config.yaml")
        record = Record(folder, run_id=secrets.token_hex(4), seed=cfg.seed, bound=bound(model, data))
    metrics: dict[str, float] = {}
    error: BaseException | None = None
    try:
        trainer.loggers = _make_loggers(cfg, folder, record)
        if last is not None and is_zero:
            _rewind(trainer.loggers, last)
        with _argv_of_ranks(folder):
            trainer.fit(model, datamodule=data, ckpt_path=last, weights_only=True)
        metrics |= _values(trainer)
        best = folder / "checkpoints" / "best.ckpt"
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if score is not None:
            metrics[f"best/{cfg.monitor}"] = float(score)
        if cfg.test:
            path = str(best) if best.exists() else None
            trainer.test(model, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
            metrics |= _values(trainer)
    except BaseException as caught:
        error = caught
        if isinstance(caught, SIGTERMException):
            raise SystemExit(143) from caught  # as a shell reports it; Lightning alone would exit with 0
        if isinstance(caught, NonFiniteError | MisconfigurationException):
            raise ConfigError(str(caught)) from caught
        raise
    finally:
        if record is not None:
            steps = trainer.global_step
            record.finish(error, metrics=metrics or _values(trainer), steps=steps, data=data.checksums)
            if isinstance(error, SystemExit | SIGTERMException | KeyboardInterrupt):
                log.info("interrupted; continue with %s", override("resume", folder))
        _close_wandb(exit_code=0 if error is None else 1)
    if is_zero:
        page = _report(cfg, folder, trainer) if cfg.get("report") else None
        _summarise(cfg, folder, metrics, trainer.global_step, page)
    return metrics


def _values(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _make_loggers(cfg: DictConfig, folder: Path, record: Record | None) -> list[Logger]:
    hparams = OmegaConf.to_container(cfg)
    loggers = []
    for name in cfg.get("logger") or {}:
        kwargs: dict[str, Any] = {"save_dir": str(folder)}
        if name in ("wandb", "mlflow"):
            kwargs |= {"run_id": record.run_id if record else None, "hparams": hparams}
        loggers.append(make(cfg, f"logger.{name}", **kwargs))
    return loggers


def _rewind(loggers: list[Logger], last: Path) -> None:
    """Drops what was logged after the checkpoint: the resumed run goes through these steps again."""
    for logger in loggers:
        if isinstance(logger, CSV):
            logger.truncate(load_checkpoint(last)["global_step"])


@contextmanager
def _argv_of_ranks(folder: Path) -> Iterator[None]:
    """Lightning starts the other processes of DDP with this one's argv, `-m a=1,2` included.

    They must run this job, not the sweep: they are sent to the resolved config in its folder.
    """
    argv = sys.argv
    sys.argv = [argv[0], "--rank-of", str(folder.resolve())]
    try:
        yield
    finally:
        sys.argv = argv


def _close_wandb(exit_code: int) -> None:
    """Closes the run, or the next job of a sweep would log into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _report(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> Path | None:
    """Writes the page of the run, with the model and the images that are in memory."""
    try:
        is_best = cfg.test and (folder / "checkpoints" / "best.ckpt").exists()  # what the test has loaded
        trained = of_training(trainer, cfg.name, "best" if is_best else "last")
        trained.model.to(trained.data.device).eval().requires_grad_(False)
        return write_page(folder, fill_in(trained))
    except Exception as error:  # whatever it is: the run is finished and stays so
        log.warning("no report: %s: %s", type(error).__name__, error)
        return None


def _summarise(cfg: DictConfig, folder: Path, metrics: dict[str, float], steps: int, page: Path | None) -> None:
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    for name in (f"best/{cfg.monitor}", "test/recon", "test/kl", "test/elbo"):
        if name in metrics:
            is_share = name.endswith(("error", "active_units"))
            log.info("%-15s %10.2f %s", name, metrics[name], "" if is_share else "nats per image")
    if "test/error" in metrics:
        log.info("%-15s %10.4f of the images are classified wrongly", "test/error", metrics["test/error"])
    if cfg.expected:
        log.info("expected        %10.2f ± %s", cfg.expected["value"], cfg.expected["tolerance"])
    if warning := unused_latents(cfg, metrics, steps):
        log.warning(warning)
    if (folder / "images").is_dir():
        log.info("pictures        %s", folder / "images")
    if page is not None:
        log.info("report          %s", folder / page.name)
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not last.exists() and not best.exists():
        log.info("no checkpoint was written: nothing can be done with this run")
        return
    if not best.exists():
        log.info("no validation took place: there is no best checkpoint, the last weights are what was tested")
    words = [override("run", folder), *([] if best.exists() else ["checkpoint=last"])]
    log.info("next            %s", " ".join([shlex.quote(str(python)), "-m vae_exp.evaluate", *words]))
