"""Trains one model from a config, in its own run folder."""

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae_exp.callbacks import Checkpoint, Ending
from vae_exp.cli import is_further_process
from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.files import FULL, clear_parts, written
from vae_exp.ledger import NonFiniteError
from vae_exp.lock import locked
from vae_exp.loggers.csv import forget_validation
from vae_exp.loggers.view import as_view
from vae_exp.metrics.collapse import unused_latents
from vae_exp.models import VAE
from vae_exp.overrides import OF_SWEEPS, choices, override
from vae_exp.page.pictures import fill_in
from vae_exp.page.write import write_page
from vae_exp.resolvers import known_run
from vae_exp.runs.build import bound, build, check_call, check_values, make, prepare
from vae_exp.runs.checkpoint import load_checkpoint, newest_sound
from vae_exp.runs.dry_run import check_shapes, check_step
from vae_exp.runs.record import Record
from vae_exp.runs.resume import resumed_config, start_of
from vae_exp.runs.trained import of_training
from vae_exp.runs.weights import start_weights
from vae_exp.training.pictures import check_draw, draw
from vae_exp.training.processes import processes_of_one_run
from vae_exp.training.signals import Signals
from vae_exp.training.summary import summarise
from vae_exp.training.trainer import check_monitors, make_trainer

__all__ = ["train", "train_job"]

# Keys that change no number of an experiment by more than its tolerance; the tolerance covers different seeds.
UNCHANGED = ("experiment", "resume", "seed", "name", "report", "data.root", "trainer.enable_progress_bar", "expected")


log = logging.getLogger("vae_exp")


def train_job(cfg: DictConfig) -> Path:
    """Trains the model of the command line, and returns the run folder."""
    hydra = HydraConfig.get()
    folder = Path(cfg.resume).resolve() if cfg.resume else Path(hydra.runtime.output_dir)
    with _only_writer(folder):
        _train_in(folder, cfg, hydra)
    return folder


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Within it, no other run is written into the folder.

    Raises:
        ConfigError: If another process does so.
    """
    if is_further_process():  # of the same run
        yield
        return
    with locked(folder, wait=False) as is_mine:
        if not is_mine:
            raise ConfigError(f"{folder}: another process is training this run, and two would mix their files")
        if (folder / "run.json").exists():
            clear_parts(folder)
        yield


def _train_in(folder: Path, cfg: DictConfig, hydra: HydraConf) -> None:
    if cfg.resume:
        cfg = resumed_config(cfg, hydra)
        if start_of(folder) is None:
            log.warning("%s was stopped before its first checkpoint: it begins anew, as the same run", folder)
    elif (folder / "run.json").exists():
        raise ConfigError(
            f"{folder} already holds a run: {override('resume', folder)} continues it, another hydra.run.dir starts one"
        )
    if OmegaConf.is_dict(cfg.expected) and not all(map(_is_as_expected, hydra.overrides.task)):
        cfg.expected = None  # it holds only for the unchanged experiment
    words = list(hydra.overrides.task)
    for word in words:
        if word.startswith(OF_SWEEPS):
            raise ConfigError(
                f"{word}: this is one run, and launcher and sweep are of several: add -m, or leave it out"
            )
    if not cfg.resume and cfg.sweep.grid:  # the config of a run has no sweep
        raise ConfigError(f"experiment={choices(hydra)['experiment']} trains several runs: add -m")
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    cfg = OmegaConf.create({key: value for key, value in resolved.items() if key not in (*OF_SWEEPS, "allow")})
    about = {} if cfg.resume else {"choices": choices(hydra), "overrides": words, "sweep": None}
    summarise(cfg, folder, train(cfg, folder, about))


def _is_as_expected(word: str) -> bool:
    """Whether an override keeps the numbers of an experiment within their tolerance."""
    key = word.lstrip("+~").partition("=")[0]
    return key in UNCHANGED or key.partition(".")[0] in ("hydra", "logger")


def train(cfg: DictConfig, folder: Path, about: dict[str, Any] | None = None) -> dict[str, float]:
    """Trains a model.

    Arguments:
        cfg: A resolved config. If `resume` is set, the run in `folder` is continued.
        folder: The run folder.
        about: What else `run.json` is to say.

    Returns:
        The last value of every metric, including those of the test split, and the best value of the monitored metric
        as `best/...`; nats per image.

    Raises:
        ConfigError: If the config is wrong, data are missing or corrupt, or a loss is not a finite number.
    """
    check_values(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    model, data = build(cfg)
    start = start_of(folder) if cfg.resume else None
    start_weights(cfg, model, is_new=start is None)
    with known_run(run_dir=str(folder)):
        trainer = make_trainer(cfg, folder)
    signals = trainer._signal_connector
    assert isinstance(signals, Signals)
    if not trainer.is_global_zero:
        with signals.held(), signals.named(), _reported(folder, data):
            return _fit_and_test(cfg, folder, trainer, model, data, start, run_id=None)
    # Before the run begins, so that a user learns at once that files are missing.
    check_step(model, data.image_shape, data.batch_size // trainer.world_size)
    check_monitors(trainer.callbacks, check_shapes(model, data.image_shape, to_train=False))  # type: ignore[attr-defined]
    for name in cfg.get("logger") or {}:
        check_call(cfg, f"logger.{name}")
    check_draw(cfg, folder)
    prepare(data, trainer.world_size)
    log.info("%-15s %s", "data", data.contents)
    if data.remedy:
        log.warning(data.remedy)
    folder.mkdir(parents=True, exist_ok=True)
    cfg.data.root = str(Path(cfg.data.root).expanduser().resolve())
    if (path := OmegaConf.select(cfg, "data.source.path")) and (own := Path(path).expanduser()).exists():
        cfg.data.source.path = str(own.absolute())  # so that commands in another folder find it
    cfg.data.scaled = data.scale and list(data.scale)
    with written(folder / "config.yaml") as file:
        OmegaConf.save(cfg, file)
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # an agent of a W&B sweep waits for this id
    with signals.held():
        record = Record(
            folder,
            run_id=run_id,
            seed=cfg.seed,
            bound=bound(model, data),
            contents=data.contents.as_dict(),
            folded=data.folded,
            **(about or {}),
        )
        metrics: dict[str, float] = {}
        error: BaseException | None = None
        try:
            with processes_of_one_run(folder), signals.named(), _reported(folder, data):
                metrics = _fit_and_test(cfg, folder, trainer, model, data, start, record.run_id)
        except BaseException as caught:
            error = caught
            raise
        finally:
            _close_wandb(exit_code=0 if error is None else 1)
            ended = {"metrics": metrics or _values(trainer), "data": data.checksums}
            status = "pruned" if _is_pruned(trainer) else "finished"
            try:
                record.finish(error, status, **ended, steps=trainer.global_step, epochs=trainer.current_epoch)
            except OSError as failure:
                if error is None:
                    raise
                log.warning("run.json does not say how the run ended: %s", failure.strerror)  # `error` is the cause
            if isinstance(error, SystemExit | KeyboardInterrupt):
                log.info("interrupted; continue with %s", override("resume", folder))
    if warning := unused_latents(cfg, metrics, trainer.global_step):
        log.warning(warning)
    metrics |= draw(cfg, folder)
    if cfg.get("report"):
        _report(cfg, folder, trainer)
    return metrics


@contextmanager
def _reported(folder: Path, data: Images) -> Iterator[None]:
    """Turns what a user can mend into an error that is shown in a few lines."""
    try:
        yield
    except NonFiniteError as error:
        raise ConfigError("\n".join(filter(None, (str(error), data.remedy)))) from error
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is gone: somebody deleted or moved it while the run was trained") from error
        if error.errno not in FULL:
            raise
        files = [folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
        if sound := newest_sound(files, to_resume=True):
            way = f"{sound} is sound, {override('resume', folder)} goes on from it"
        elif sound := newest_sound(files):
            way = f"{sound} is sound, weights alone: {override('resume', folder)} begins anew"
        else:
            way = f"there is no checkpoint yet: {override('resume', folder)} begins anew"
        raise ConfigError(f"{error.filename or folder}: {error.strerror}; {way}") from error


def _fit_and_test(
    cfg: DictConfig,
    folder: Path,
    trainer: pl.Trainer,
    model: VAE,
    data: Images,
    start: Path | None,
    run_id: str | None,
) -> dict[str, float]:
    """What every process of a run does; returns the metrics, and the best value of the monitored one."""
    state = load_checkpoint(start) if start else {}
    first_step = state.get("global_step", 0)
    if state.get("repeats_validation") and trainer.is_global_zero:
        forget_validation(folder / "metrics.csv", first_step - 1)
    with known_run(run_dir=str(folder), run_id=run_id, first_step=first_step):
        made = [as_view(partial(make, cfg, f"logger.{name}"), name) for name in cfg.get("logger") or {}]
        trainer.loggers = [logger for logger in made if logger is not None]
    for logger in trainer.loggers if trainer.is_global_zero else []:
        logger.log_hyperparams(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    metrics = _values(trainer)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoint):
            # Of a run that was stopped after its last epoch, nothing is left to train.
            metrics = callback.metrics | metrics
        if isinstance(callback, ModelCheckpoint) and callback.monitor == cfg.monitor:
            score = callback.best_model_score
            metrics |= {} if score is None else {f"best/{cfg.monitor}": float(score)}
    if cfg.test and not _is_pruned(trainer):
        # With torchrun, or on several nodes, each process has named a folder by its own clock: the first one's counts.
        best = Path(trainer.strategy.broadcast(str(folder))) / "checkpoints" / "best.ckpt"
        path = str(best) if best.exists() else None
        trainer.test(model, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
        metrics |= _values(trainer)
    return metrics


def _is_pruned(trainer: pl.Trainer) -> bool:
    """Whether a search ended the run before it was finished."""
    return any(callback.has_ended for callback in trainer.callbacks if isinstance(callback, Ending))  # type: ignore[attr-defined]


def _values(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _close_wandb(exit_code: int) -> None:
    """Closes the run; otherwise the next job of a sweep would log into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        try:
            wandb.finish(exit_code=exit_code)
        except Exception as failure:  # it is a view, whatever becomes of it
            log.warning("W&B has failed, its file may lack the last rows: %s", failure)


def _report(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> None:
    """Writes the page of the run, using the model and the images that are in memory."""
    try:
        is_best = cfg.test and (folder / "checkpoints" / "best.ckpt").exists()  # the test has loaded it
        trained = of_training(trainer, cfg.name, "best" if is_best else "last")
        trained.model.to(trained.data.device).eval().requires_grad_(False)
        log.info("report          %s", write_page(folder, fill_in(trained)))
    except Exception as error:  # any error: the run itself has finished
        log.warning("no report: %s: %s", type(error).__name__, error)
