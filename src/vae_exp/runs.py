"""A run and its folder: the parts built from a config, and what of a run can be found again."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from hydra.conf import HydraConf
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae_exp.config import ConfigError, load_config
from vae_exp.data import Images
from vae_exp.likelihoods import SUPPORTS
from vae_exp.models import VAE
from vae_exp.objectives import SemiSupervised
from vae_exp.shapes import check_shapes

__all__ = [
    "bound",
    "build",
    "check_values",
    "checkpoint",
    "fingerprint",
    "load_checkpoint",
    "load_weights",
    "make",
    "prepare",
    "resumed_config",
]

PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "corruption")
# What a resumed run may change; all else makes it the run it is.
FREE_GROUPS = ("trainer", "logger", "callbacks")
FREE_KEYS = ("test", "report", "data.root", "data.eval_batch_size")
DEVICES = ("accelerator", "devices", "strategy")
# What the configs of earlier runs do not state of their loggers.
FOLDER, ID, STEP = {"save_dir": "${run_dir:}"}, {"run_id": "${run_id:}"}, {"first_step": "${first_step:}"}
OF_LOGGERS = {
    "vae_exp.loggers.CSV": FOLDER | STEP,
    "vae_exp.loggers.make_wandb": FOLDER | ID,
    "vae_exp.loggers.make_mlflow": FOLDER | ID,
    "pytorch_lightning.loggers.TensorBoardLogger": FOLDER,
}


def make(cfg: DictConfig, key: str, **kwargs: Any) -> Any:
    """Instantiates the node `key` of the config: the one place where names in yaml become objects.

    Raises:
        ConfigError: If it cannot be made; the message names the key.
    """
    node = OmegaConf.select(cfg, key)
    if node is None:
        raise ConfigError(f"{key} is missing from the config: choose one with {key}=... (see --help)")
    try:
        # Plain lists and dicts: OmegaConf's own would end up in checkpoints, which then do not load. What the
        # config does not say is given to the object itself: Hydra would look for targets in it.
        made = instantiate(node, _convert_="all", **({"_partial_": True} if kwargs else {}))
        return made(**kwargs) if kwargs else made
    except (InstantiationException, MisconfigurationException, ImportError, TypeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        reason = "\n".join(str(cause).splitlines()[:4])
        raise ConfigError(reason if reason.startswith(key) else f"{key}: {reason}") from error


def check_values(cfg: DictConfig) -> None:
    """Refuses what Lightning would refuse late or with a stack trace.

    Raises:
        ConfigError: It names the key.
    """
    if cfg.monitor_mode not in ("min", "max"):
        raise ConfigError(f"monitor_mode={cfg.monitor_mode}: choose min or max")
    if cfg.monitor_mode == "max" and cfg.monitor in ("val/recon", "val/loss", "val/error"):
        raise ConfigError(f"monitor={cfg.monitor} is better the lower it is: set monitor_mode=min")
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed={cfg.seed}: a whole number from 0 to 2^32 - 1 is needed")
    if cfg.trainer.log_every_n_steps < 1:
        raise ConfigError(
            f"trainer.log_every_n_steps={cfg.trainer.log_every_n_steps}: at least 1; logger=none logs nothing"
        )


def build(cfg: DictConfig) -> tuple[VAE, Images]:
    """Puts model and data together and checks that they fit, before any data are read.

    Raises:
        ConfigError: If a part cannot be made or does not fit the others.
    """
    if OmegaConf.select(cfg, "model.context_dim", default=0) is None:
        raise ConfigError(
            f"{cfg.name}: this model conditions on labels, and the data have none (data.num_classes=null).\n"
            "Ways out: model=vae, or data with labels such as data=mnist"
        )
    data = make(cfg, "data")
    try:
        model = make(cfg, "model", **{part: make(cfg, part) for part in PARTS})
        if getattr(model.likelihood, "support", None) not in SUPPORTS:
            raise ValueError(
                f"likelihood: {cfg.likelihood._target_} must say its support, one of {', '.join(SUPPORTS)}"
            )
        is_grey_allowed = getattr(model.likelihood, "allow_grey", False) and data.values != "real"
        if not _fits(data, model) and not is_grey_allowed:
            given = f"{type(model.likelihood).__name__} scores {model.likelihood.support} pixels"
            raise ValueError(f"{given}, the data are {data.representation} ({data.values}).\n{_ways_out(data)}")
        if data.labelled_per_batch is not None and not isinstance(model.objective, SemiSupervised):
            raise ValueError(
                f"data.labelled_per_batch={data.labelled_per_batch} shows labelled images in excess, and "
                "objective=semi_supervised alone weights them down: choose model=m2, or data.labelled_per_batch=null"
            )
        if data.labelled is not None and model.needs_labels:
            raise ValueError(
                f"data.labelled={data.labelled}: this model needs the label of every training image. "
                "Ways out: model=m2, or data.labelled=null"
            )
        if cfg.trainer.get("compile"):
            # In place, the networks alone: the same keys in checkpoints, the same numbers from the distributions.
            model.encoder.compile()
            model.decoder.compile()
        monitors = [f"val/{term}" for term in check_shapes(model, data.image_shape)]
        if cfg.monitor not in monitors:
            raise ValueError(f"monitor={cfg.monitor}: of this model choose one of {', '.join(monitors)}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model, data


def _ways_out(data: Images) -> str:
    if data.values == "real":
        return "Ways out: likelihood=sse (gaussian, gaussian_shared, laplace, sigma_vae)"
    if data.values == "unit":
        return "Ways out: likelihood=continuous_bernoulli, or a density on all real numbers such as likelihood=sse"
    return (
        "Ways out: data.binarize=dynamic (static, threshold); likelihood=sse; or likelihood.allow_grey=true,\n"
        "the customary bce of grey pixels, which is no probability: the ELBO is recorded as no bound"
    )


def prepare(data: Images, world_size: int = 1) -> None:
    """Fetches and reads the images of training, to be shared out among `world_size` processes.

    Raises:
        ConfigError: If files are missing or corrupt, or not what the config says.
    """
    try:
        data.check_shares(world_size)
        data.prepare_data()
        data.setup("fit")
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _fits(data: Images, model: VAE) -> bool:
    return SUPPORTS.index(data.values) <= SUPPORTS.index(model.likelihood.support)


def bound(model: VAE, data: Images) -> dict[str, Any]:
    """What the run's ELBO bounds; ELBOs compare where these agree."""
    return {
        "of": model.bounds,
        "representation": data.representation,
        "kind": "mass" if model.likelihood.support in ("binary", "levels") else "density",
        "is_bound": model.bounds is not None and _fits(data, model),
        "units": "nats per image",
    }


def resumed_config(cfg: DictConfig, hydra: HydraConf) -> DictConfig:
    """The config of the run `cfg.resume`, changed by what the command line sets.

    Raises:
        ConfigError: If there is no such run, it has no checkpoint, or the command line exchanges its parts.
    """
    saved = load_config(cfg.resume)
    for name, node in (saved.get("logger") or {}).items():
        saved.logger[name] = node and OmegaConf.merge(OF_LOGGERS.get(node._target_, {}), node)
    before = saved.copy()
    epoch = load_checkpoint(checkpoint(cfg.resume, "last"))["epoch"]
    cfg.name = saved.name
    for override in hydra.overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if key == "trainer":  # where to train; for how long is the run's own
            saved.trainer.update({name: cfg.trainer[name] for name in DEVICES})
        elif key in FREE_GROUPS:
            saved[key] = cfg[key]
        elif key == "resume" or key in FREE_KEYS or key.partition(".")[0] in FREE_GROUPS:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
        else:
            raise ConfigError(
                f"{override}: a resumed run goes on as it began, "
                f"only {', '.join((*FREE_GROUPS, *FREE_KEYS))} can change.\n"
                f"For another model, optimizer or data start a run with init_from={cfg.resume}"
            )
    if saved.trainer.max_epochs and 0 <= saved.trainer.max_epochs <= epoch:
        raise ConfigError(
            f"trainer.max_epochs={saved.trainer.max_epochs}: {cfg.resume} is in epoch {epoch + 1}, give more"
        )
    status = json.loads((Path(cfg.resume) / "run.json").read_text())["status"]
    if status == "finished" and all(saved[key] == before[key] for key in ("trainer", "callbacks")):
        raise ConfigError(
            f"{cfg.resume} was trained to its end, trainer.max_epochs={saved.trainer.max_epochs} at most: "
            "to go on give it more, or another callbacks.early_stopping.patience"
        )
    return saved


def checkpoint(folder: str | Path, name: str) -> Path:
    """The checkpoint `best` or `last` of a run.

    Raises:
        ConfigError: If there is none.
    """
    load_config(folder)
    path = Path(folder) / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise ConfigError(f"{folder} has no checkpoints/{name}.ckpt: the run stopped before it wrote one")
    return path


def fingerprint(path: Path) -> str | None:
    """The first 16 digits of the sha256 of a file, by which results know their weights; None where it is missing."""
    return sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain values.

    Raises:
        ConfigError: If the file is corrupt.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file can fail in any way
        raise ConfigError(f"{path} is corrupt: {str(error).splitlines()[0]}") from error


def load_weights(model: VAE, path: Path) -> None:
    """Loads the weights of a checkpoint into a model of the same parts.

    Raises:
        ConfigError: If the parts differ or the file is corrupt.
    """
    try:
        model.load_state_dict(load_checkpoint(path)["state_dict"])
        model.is_new = False
    except RuntimeError as error:
        reason = "\n".join(line.strip() for line in str(error).splitlines()[:3])
        raise ConfigError(f"{path} is of a model with other parts: {reason}") from error
