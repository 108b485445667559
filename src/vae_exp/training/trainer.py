"""The trainer of a run: Lightning's, with our training loop and checkpoints that are never half written."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.runs.build import make
from vae_exp.training.loop import Steps
from vae_exp.training.signals import Signals, Stop

__all__ = ["check_monitors", "make_trainer"]

log = logging.getLogger("vae_exp")

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def make_trainer(cfg: DictConfig, folder: Path) -> pl.Trainer:
    """The trainer of a run, which writes into the run folder; it has no loggers yet.

    Raises:
        ConfigError: If the trainer or a callback cannot be made, or this machine lacks the devices.
    """
    _quieten_lightning()
    precision = str(cfg.trainer.precision)
    if precision not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision={precision}: choose one of {', '.join(PRECISIONS)}. "
            "With true half precision the bound, too, would have only half precision"
        )
    if precision == "16-mixed" and cfg.trainer.gradient_clip_val and cfg.optimizer.get("fused"):
        raise ConfigError(
            "trainer.precision=16-mixed cannot clip the gradients of a fused optimizer: set optimizer.fused=false"
        )
    cfg = cfg.copy()
    cuda_graphs = cfg.trainer.pop("cuda_graphs", "auto")
    cfg.trainer.pop("compile", None)  # a setting of the model, see `build`
    if cuda_graphs not in ("auto", False):
        raise ConfigError(f"trainer.cuda_graphs={cuda_graphs}: choose auto or false")
    names = [name for name, node in (cfg.get("callbacks") or {}).items() if node]
    if not cfg.trainer.enable_progress_bar:
        names = [name for name in names if name != "progress"]
    callbacks = [make(cfg, f"callbacks.{name}") for name in names]
    for name, callback in zip(names, callbacks, strict=True):
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks.{name}: {type(callback).__name__} is no callback of Lightning's")
    checkpoints = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    # The checkpoint that a run is resumed from is saved last, so that it has the final state of the other callbacks.
    checkpoints.sort(key=lambda checkpoint: checkpoint.monitor is None)
    callbacks = [callback for callback in callbacks if callback not in checkpoints] + checkpoints
    files = [f"{each.dirpath or 'checkpoints'}/{each.filename}.ckpt" for each in checkpoints if each.filename]
    for file in files:
        if files.count(file) > 1:
            raise ConfigError(f"callbacks: two of them write {file}, give each a filename of its own")
    # The folder is not in the config, so that a run that was moved is resumed in its new place.
    trainer: pl.Trainer = make(
        cfg,
        "trainer",
        callbacks=[Stop(), *callbacks],
        logger=False,
        default_root_dir=str(folder),
        plugins=[AtomicIO(), *_launcher(cfg)],
    )
    _check_strategy(trainer, cfg.trainer)
    if cfg.optimizer.get("capturable") and trainer.strategy.root_device.type == "cpu":
        raise ConfigError("optimizer.capturable=true counts the steps on a GPU, this run has none: set it to false")
    trainer._signal_connector = Signals(trainer)
    if precision == "bf16-mixed" and trainer.strategy.root_device.type == "cpu" and not _has_bf16():
        log.warning("trainer.precision=bf16-mixed is slower than 32-true: this CPU has neither AVX512_BF16 nor AMX")
    trainer.fit_loop.epoch_loop.automatic_optimization = Steps(trainer, cuda_graphs=cuda_graphs == "auto")
    if not isinstance(trainer.accelerator, CUDAAccelerator):
        # With this variable, which Lightning sets, torch looks for a GPU slowly; a fused optimizer looks at each step.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    return trainer


def _check_strategy(trainer: pl.Trainer, given: DictConfig) -> None:
    """Refuses what would split the weights, start processes that share no command line, or use fewer devices."""
    strategy = trainer.strategy
    is_ddp = isinstance(strategy, DDPStrategy) and getattr(strategy, "_start_method", "popen") in (None, "popen")
    if not (is_ddp or isinstance(strategy, SingleDeviceStrategy)):
        raise ConfigError(
            f"trainer.strategy={given.strategy}: choose auto or ddp. Models of this size need no other one, and "
            "checkpoints here are of whole models, metrics.csv is of one process"
        )
    devices = given.devices if isinstance(given.devices, int) else 1
    if not is_ddp and (devices > 1 or given.get("num_nodes", 1) > 1):
        raise ConfigError(
            f"trainer.strategy={given.strategy} uses one device, trainer.devices={given.devices} asks for more: "
            "set trainer.strategy=ddp, as trainer=ddp does"
        )


def _has_bf16() -> bool:
    """Whether the CPU multiplies numbers of 16 bits by itself, or torch cannot tell."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return able.get("architecture") != "x86_64" or any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _launcher(cfg: DictConfig) -> list[ClusterEnvironment]:
    """Lightning's own launcher, if the tasks of the SLURM allocation are not the processes of this run.

    Without it, Lightning treats every process that has SLURM's variables as one of SLURM's tasks, even in an
    interactive shell.

    Raises:
        ConfigError: If SLURM started several tasks but the run does not have the same number of processes.
    """
    if not SLURMEnvironment.detect():
        return []
    tasks, devices = int(os.environ["SLURM_NTASKS"]), cfg.trainer.devices
    if devices in ("auto", -1, "-1"):
        devices = torch.accelerator.device_count() if cfg.trainer.accelerator != "cpu" else 1
    per_node = len(devices) if isinstance(devices, ListConfig) else int(devices)
    if tasks == max(per_node, 1) * cfg.trainer.get("num_nodes", 1):
        return []
    if os.environ.get("SLURM_PROCID", "0") != "0":
        raise ConfigError(
            f"SLURM started {tasks} tasks (SLURM_NTASKS), but trainer.devices={cfg.trainer.devices} is one process: "
            f"start it with srun --ntasks=1, or set trainer.devices={tasks}"
        )
    return [LightningEnvironment()]


def check_monitors(callbacks: Sequence[Callback], terms: Sequence[str]) -> None:
    """Refuses a callback that follows what nobody logs, which Lightning would notice at the first validation.

    Arguments:
        callbacks: Those of the run.
        terms: What the model logs of each split: elbo, kl, ...

    Raises:
        ConfigError: If there is one, and no callback of the user's own could log it.
    """
    known = [f"val/{term}" for term in (*terms, "active_units")]
    if all(type(callback).__module__.startswith(("vae_exp.", "pytorch_lightning.")) for callback in callbacks):
        for callback in callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in known and not monitor.startswith("train/"):
                raise ConfigError(
                    f"callbacks: {type(callback).__name__} has monitor={monitor}, which is not logged: "
                    f"choose one of {', '.join(known)}"
                )


def _quieten_lightning() -> None:
    """Hides what Lightning says about devices, and four warnings that do not matter here; keeps its other warnings."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".isinstance\(treespec, LeafSpec\)",  # a deprecation within Lightning 2.6.6
        "Checkpoint directory .* exists",  # a resumed run has to write there
        "The number of training batches .* is smaller than the logging interval",  # the next epoch continues the count
        "You're resuming from a checkpoint",  # the data module saves the state that Lightning misses in the loader
    ):
        warnings.filterwarnings("ignore", message)


class AtomicIO(TorchCheckpointIO):
    """Checkpoints that are complete or absent: each is written to another file, which is then renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes, flushes to the disk, renames."""
        path = Path(path)
        path.parent.mkdir(exist_ok=True)  # alone: a run folder that somebody deleted is not made again
        with written(path, "wb") as file:
            disk = _Disk(file)
            try:
                torch.save(checkpoint, disk)  # type: ignore[arg-type]  # it only writes
            except RuntimeError as error:
                raise disk.error or error from error


class _Disk:
    """A file that remembers its error, of which torch says nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes bytes, and keeps what the disk objects to."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Nothing: `written` does it."""
