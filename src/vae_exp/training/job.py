"""Trains one model from a config, in its own run folder."""

import logging
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from vae_exp.config import ConfigError
from vae_exp.ledger import NonFiniteError
from vae_exp.metrics.collapse import unused_latents
from vae_exp.overrides import override
from vae_exp.page.pictures import fill_in
from vae_exp.page.write import write_page
from vae_exp.resolvers import known_run
from vae_exp.runs.build import bound, build, check_values, make, prepare
from vae_exp.runs.dry_run import check_step
from vae_exp.runs.folder import checkpoint, load_checkpoint, load_config, load_weights, resumed_config
from vae_exp.runs.record import Record
from vae_exp.runs.trained import of_training
from vae_exp.training.trainer import make_trainer

__all__ = ["train", "train_job", "train_rank"]

# Keys that change no number of an experiment by more than its tolerance; the tolerance covers different seeds.
UNCHANGED = ("experiment", "resume", "seed", "name", "report", "data.root", "trainer.enable_progress_bar", "expected")

log = logging.getLogger("vae_exp")


def train_job(cfg: DictConfig) -> float | None:
    """Trains the model of the command line; returns the monitored metric, for sweepers that optimise."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if cfg.resume:
        cfg, folder = resumed_config(cfg, hydra), Path(cfg.resume).resolve()
    elif (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder} already holds a run: {override('resume', folder)} continues it, another hydra.run.dir starts one"
        )
    if OmegaConf.is_dict(cfg.expected) and not all(map(_is_as_expected, hydra.overrides.task)):
        cfg.expected = None  # it holds only for the unchanged experiment
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    return train(OmegaConf.create(resolved), folder).get(f"best/{cfg.monitor}")


def _is_as_expected(word: str) -> bool:
    """Whether an override keeps the numbers of an experiment within their tolerance."""
    key = word.lstrip("+~").partition("=")[0]
    return key in UNCHANGED or key.partition(".")[0] in ("hydra", "logger")


def train_rank(folder: Path) -> None:
    """Joins the run of `folder` as one of the processes that DDP starts; only the first process reports errors."""
    try:
        train(load_config(folder), folder)
    except ConfigError as error:
        raise SystemExit(2) from error


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Trains a model.

    Arguments:
        cfg: A resolved config. If `resume` is set, the run in `folder` is continued.
        folder: The run folder.

    Returns:
        The last value of every metric, including those of the test split, and the best value of the monitored metric
        as `best/...`; nats per image.

    Raises:
        ConfigError: If the config is wrong, data are missing or corrupt, or a loss is not a finite number.
    """
    check_values(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    model, data = build(cfg)
    if cfg.init_from and not cfg.resume:
        load_weights(model, checkpoint(cfg.init_from, "best"))
    last = checkpoint(folder, "last") if cfg.resume else None
    with known_run(run_dir=str(folder)):
        trainer = make_trainer(cfg, folder)
    record = None
    is_zero = trainer.is_global_zero
    if is_zero:
        # Before the run begins, so that a user learns at once that files are missing.
        check_step(model, data.image_shape, data.batch_size // trainer.world_size)
        prepare(data, trainer.world_size)
        folder.mkdir(parents=True, exist_ok=True)
        cfg.data.root = str(Path(cfg.data.root).resolve())
        OmegaConf.save(cfg, folder / "config.yaml")
        run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # an agent of a W&B sweep waits for this id
        record = Record(folder, run_id=run_id, seed=cfg.seed, bound=bound(model, data))
    metrics: dict[str, float] = {}
    error: BaseException | None = None
    try:
        known_id, first_step = record and record.run_id, load_checkpoint(last)["global_step"] if last else 0
        with known_run(run_dir=str(folder), run_id=known_id, first_step=first_step):
            trainer.loggers = [make(cfg, f"logger.{name}") for name in cfg.get("logger") or {}]
        for logger in trainer.loggers if is_zero else []:
            logger.log_hyperparams(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
        with _argv_of_ranks(folder):
            trainer.fit(model, datamodule=data, ckpt_path=last, weights_only=True)
        metrics |= _values(trainer)
        best = folder / "checkpoints" / "best.ckpt"
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == cfg.monitor:
                score = callback.best_model_score
                metrics |= {} if score is None else {f"best/{cfg.monitor}": float(score)}
        if cfg.test:
            path = str(best) if best.exists() else None
            trainer.test(model, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
            metrics |= _values(trainer)
    except BaseException as caught:
        error = caught
        if isinstance(caught, SIGTERMException):
            raise SystemExit(143) from caught  # as a shell reports SIGTERM; Lightning alone would exit with 0
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


@contextmanager
def _argv_of_ranks(folder: Path) -> Iterator[None]:
    """Makes the other processes of DDP run this job.

    Lightning starts them with the command line of this process, which can be a sweep (`-m a=1,2`). So they are given
    the folder of the job, with its resolved config, instead.
    """
    argv = sys.argv
    sys.argv = [argv[0], "--rank-of", str(folder.resolve())]
    try:
        yield
    finally:
        sys.argv = argv


def _close_wandb(exit_code: int) -> None:
    """Closes the run; otherwise the next job of a sweep would log into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        try:
            wandb.finish(exit_code=exit_code)
        except (OSError, wandb.Error) as failure:
            log.warning("W&B has failed, its file may lack the last rows: %s", failure)


def _report(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> Path | None:
    """Writes the page of the run, using the model and the images that are in memory."""
    try:
        is_best = cfg.test and (folder / "checkpoints" / "best.ckpt").exists()  # the test has loaded it
        trained = of_training(trainer, cfg.name, "best" if is_best else "last")
        trained.model.to(trained.data.device).eval().requires_grad_(False)
        return write_page(folder, fill_in(trained))
    except Exception as error:  # any error: the run itself has finished
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
        log.info("no checkpoint was written, so no command can use this run")
        return
    if not best.exists():
        log.info("there was no validation and so no best checkpoint: the last weights were tested")
    words = [override("run", folder), *([] if best.exists() else ["checkpoint=last"])]
    log.info("next            %s", " ".join([shlex.quote(str(python)), "-m vae_exp.evaluate", *words]))
