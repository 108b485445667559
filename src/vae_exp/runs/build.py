"""From a config to objects: the parts of a run, checked to fit each other and the data."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.likelihoods import SUPPORTS
from vae_exp.models import VAE
from vae_exp.objectives import SemiSupervised
from vae_exp.runs.dry_run import check_shapes

__all__ = [
    "bound",
    "build",
    "check_values",
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
        if getattr(model.likelihood, "support", None) not in SUPPORTS:
            raise ValueError(
                f"likelihood: {cfg.likelihood._target_} must say its support, one of {', '.join(SUPPORTS)}"
            )
        is_grey_allowed = getattr(model.likelihood, "allow_grey", False) and data.values != "real"
        if not _fits(data, model) and not is_grey_allowed:
            given = f"{type(model.likelihood).__name__} scores {model.likelihood.support} pixels"
            raise ValueError(f"{given}, the data are {data.representation} ({data.values}).\n{_ways_out(data)}")
        if getattr(model.likelihood, "mean", "identity") == "sigmoid":
            _check_sigmoid(model, data)
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


def _check_sigmoid(model: VAE, data: Images) -> None:
    """Refuses what a likelihood whose mean is a sigmoid of the decoder's number would silently do badly."""
    if data.values == "real":
        raise ValueError(
            "likelihood.mean=sigmoid lies in [0, 1], and the data are any real numbers (data.levels=null): "
            "choose likelihood.mean=identity"
        )
    if getattr(model.decoder, "output_bias", "default") == "mean":
        raise ValueError(
            "decoder.output_bias=mean: the mean of the likelihood is a sigmoid of what the decoder gives, "
            "choose decoder.output_bias=mean_logit, or likelihood.mean=identity"
        )


def _ways_out(data: Images) -> str:
    if data.values == "real":
        return "Ways out: likelihood=gaussian_shared (gaussian, laplace, sigma_vae, sse)"
    if data.values == "unit":
        return "Ways out: likelihood=gaussian_shared (gaussian, sigma_vae, continuous_bernoulli, laplace, sse)"
    return (
        "Ways out: data.binarize=dynamic (static, threshold); likelihood=gaussian_shared; or\n"
        "likelihood.allow_grey=true, the customary bce of grey pixels, no probability: the ELBO is recorded as no bound"
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
