"""From a config to objects: the parts of a run, checked to fit each other and the data."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae_exp.config import CONF, ConfigError
from vae_exp.data import Images
from vae_exp.models import VAE
from vae_exp.objectives import SemiSupervised
from vae_exp.runs.dry_run import check_shapes
from vae_exp.runs.folder import load_config
from vae_exp.supports import support_of

__all__ = [
    "bound",
    "build",
    "check_values",
    "data_config",
    "make",
    "prepare",
]

# What constructors refuse an argument by.
REFUSALS = (InstantiationException, MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError)
PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "corruption")


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
    except (
        InstantiationException,
        MisconfigurationException,
        ImportError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        reason = "\n".join(str(cause).splitlines()[:4])
        raise ConfigError(reason if reason.startswith(key) else f"{key}: {reason}") from error


def data_config(key: str, name: str, root: Path, image_shape: Sequence[int]) -> DictConfig:
    """A config of the data of a run folder, or else of the option `name` of data/, brought to images `(C, H, W)`.

    Raises:
        ConfigError: If it is neither; the message names `key`.
    """
    if (Path(name) / "config.yaml").is_file():
        return OmegaConf.create({"data": load_config(name).data})
    overrides = [f"data={name}", f"data.root='{root}'", f"data.image_shape={list(image_shape)}"]
    is_open = GlobalHydra.instance().is_initialized()  # by a command
    try:
        with nullcontext() if is_open else initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("train", overrides=overrides)
    except MissingConfigException as error:
        options = ", ".join(error.options or [])
        raise ConfigError(f"{key}={name} is no run folder and none of data/: {options}") from error
    return OmegaConf.create({"data": OmegaConf.to_container(cfg.data, resolve=True)})


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
    if cfg.expected is not None and not OmegaConf.is_dict(cfg.expected):
        raise ConfigError(f"expected={cfg.expected}: null is needed, or an experiment's {{metric, value, tolerance}}")
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
        _check_support(model, data)
        if cfg.monitor not in monitors:
            raise ValueError(f"monitor={cfg.monitor}: of this model choose one of {', '.join(monitors)}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model, data


def _check_support(model: VAE, data: Images) -> None:
    support, pixels = support_of(model.likelihood, data.image_shape), data.representation
    is_grey_allowed = getattr(model.likelihood, "allow_grey", False) and not pixels.is_real
    if pixels.lies_in(support, data.image_shape) or is_grey_allowed:
        return
    if pixels.is_real:
        ways = "likelihood=sse (gaussian, gaussian_shared, laplace, sigma_vae)"
    elif not pixels.support.is_discrete:
        ways = "likelihood=continuous_bernoulli, or a density on all real numbers such as likelihood=sse"
    else:
        ways = (
            "data.binarize=dynamic (static, threshold); likelihood=sse; or likelihood.allow_grey=true,\n"
            "the customary bce of grey pixels, which is no probability: the ELBO is recorded as no bound"
        )
    name = type(model.likelihood).__name__
    raise ValueError(f"{name} scores pixels in {support}, the data are {pixels.title}.\nWays out: {ways}")


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


def bound(model: VAE, data: Images) -> dict[str, Any]:
    """What the run's ELBO bounds; ELBOs compare where these agree."""
    support = support_of(model.likelihood, data.image_shape)
    return {
        "of": model.bounds,
        "representation": data.representation.title,
        "kind": "mass" if support.is_discrete else "density",
        "is_bound": model.has("density") and data.representation.lies_in(support, data.image_shape),
        "units": "nats per image",
    }
