"""Where a run goes on: from which checkpoint, with which config, and which run it is."""

from pathlib import Path

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import ConfigError
from vae_exp.overrides import override
from vae_exp.records import read_record
from vae_exp.runs.checkpoint import load_checkpoint, newest_sound
from vae_exp.runs.folder import load_config
from vae_exp.runs.state import State, state_of
from vae_exp.runs.targets import check_paths, check_targets

__all__ = ["latest", "resumed_config", "start_of"]

# What a resumed run may change; everything else must stay the same.
FREE_GROUPS = ("trainer", "logger", "callbacks")
FREE_KEYS = ("test", "report", "data.root", "data.eval_batch_size")
DEVICES = ("accelerator", "devices", "strategy")
# What the configs of earlier runs do not state of their loggers.
FOLDER, ID, STEP = {"save_dir": "${run_dir:}"}, {"run_id": "${run_id:}"}, {"first_step": "${first_step:}"}
OF_LOGGERS = {
    "vae_exp.loggers.CSV": FOLDER | STEP,
    "vae_exp.loggers.make_wandb": FOLDER | ID | STEP,
    "vae_exp.loggers.make_mlflow": FOLDER | ID,
    "pytorch_lightning.loggers.TensorBoardLogger": FOLDER,
}


def latest(outputs: Path = Path("outputs")) -> Path:
    """The run that was cut off last; those of sweeps, which go on by themselves, are left out.

    Raises:
        ConfigError: If there is none.
    """
    records = sorted(outputs.rglob("run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in (path.parent for path in records):
        record = read_record(folder)
        if not record.get("sweep") and state_of(folder, record) is State.CUT_OFF:
            return folder
    raise ConfigError(f"resume=latest: under {outputs}/ no run was cut off, of {len(records)}")


def start_of(folder: Path) -> Path | None:
    """The newest sound checkpoint that training can go on from, `last` or `best`; None if none was written.

    Raises:
        ConfigError: If there is a damaged one and no other.
    """
    last, best = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    found = newest_sound([last, best], to_resume=True)
    if found is None and last.exists():
        load_checkpoint(last, to_resume=True)  # says what is wrong with it
    return found


def resumed_config(cfg: DictConfig, hydra: HydraConf) -> DictConfig:
    """The config of the run `cfg.resume`, with the changes that the command line sets.

    Raises:
        ConfigError: If there is no such run, its checkpoints are damaged, or the command line changes what must stay
            the same.
    """
    saved = load_config(cfg.resume)
    for name, node in (saved.get("logger") or {}).items():
        saved.logger[name] = node and OmegaConf.merge(OF_LOGGERS.get(node._target_, {}), node)
    before = saved.copy()
    _check_saved(saved, cfg, [word.lstrip("+~").partition("=")[0] for word in hydra.overrides.task])
    start = start_of(Path(cfg.resume))
    epoch = load_checkpoint(start)["epoch"] if start else -1
    cfg.name = saved.name
    for word in hydra.overrides.task:
        key = word.lstrip("+~").partition("=")[0]
        if key == "trainer":  # change where to train, but not for how long
            saved.trainer.update({name: cfg.trainer[name] for name in DEVICES})
        elif key in FREE_GROUPS:
            saved[key] = cfg[key]
        elif key in ("resume", "allow") or key in FREE_KEYS or key.partition(".")[0] in FREE_GROUPS:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
        else:
            raise ConfigError(
                f"{word}: a resumed run continues as it began; "
                f"only {', '.join((*FREE_GROUPS, *FREE_KEYS))} can change.\n"
                f"For another model, optimizer or data start a run with {override('init_from', cfg.resume)}"
            )
    if saved.trainer.max_epochs and 0 <= saved.trainer.max_epochs <= epoch:
        raise ConfigError(
            f"trainer.max_epochs={saved.trainer.max_epochs}: {cfg.resume} is in epoch {epoch + 1}, set a larger number"
        )
    finished = state_of(Path(cfg.resume)) is State.FINISHED
    if finished and all(saved[key] == before[key] for key in ("trainer", "callbacks")):
        raise ConfigError(
            f"{cfg.resume} has ended, with at most trainer.max_epochs={saved.trainer.max_epochs}: "
            "to continue, set a larger number, or another callbacks.early_stopping.patience"
        )
    return saved


def _check_saved(saved: DictConfig, cfg: DictConfig, keys: list[str]) -> None:
    """Holds what goes on of a saved config, without the keys that the command line sets, against what it may name."""
    kept, path = saved.copy(), Path(cfg.resume) / "config.yaml"
    for key in keys:
        group, _, name = key.rpartition(".")
        if isinstance(node := OmegaConf.select(kept, group) if group else kept, DictConfig) and key != "trainer":
            node.pop(name, None)
    check_targets(kept, path, cfg.get("allow"))
    check_paths(kept, path, cfg)
