"""Makes the objects of a run from its config, and checks that they fit each other and the data."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vae_exp.config import CONF, ConfigError, options
from vae_exp.data import Images
from vae_exp.models import VAE
from vae_exp.models.module import make_optimizer
from vae_exp.overrides import nearest
from vae_exp.resolvers import LOWER_IS_BETTER, decay_for, num_trained_on
from vae_exp.runs.dry_run import check_shapes
from vae_exp.runs.folder import load_config
from vae_exp.runs.targets import check_targets
from vae_exp.supports import support_of

__all__ = [
    "bound",
    "build",
    "check_call",
    "check_values",
    "data_config",
    "make",
    "prepare",
]

# The errors by which constructors refuse an argument.
REFUSALS = (InstantiationException, MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError)
PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "corruption")


def make(cfg: DictConfig, key: str, **kwargs: Any) -> Any:
    """Instantiates the node `key` of the config. Only here do names in yaml become objects.

    Raises:
        ConfigError: If the object cannot be made; the message names the key.
    """
    node = OmegaConf.select(cfg, key)
    if node is None:
        raise ConfigError(f"{key} is missing from the config: choose one with {key}=... (see --help)")
    with _refusals(node, key):
        # Convert to plain lists and dicts: OmegaConf's own would get into checkpoints, which then do not load. The
        # kwargs do not go through Hydra, because it would look for `_target_` in them.
        made = instantiate(node, _convert_="all", **({"_partial_": True} if kwargs else {}))
        made = made(**kwargs) if kwargs else made
    if isinstance(made, partial):
        made = _Partial(made.func, *made.args, **made.keywords)
        made.node, made.key = node, key
    return made


class _Partial(partial):
    """A partial that is called later, like the optimizer: what it refuses then is also an error of the config."""

    node: DictConfig
    key: str

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with _refusals(self.node, self.key):
            return super().__call__(*args, **kwargs)


@contextmanager
def _refusals(node: DictConfig, key: str) -> Iterator[None]:
    """Turns what a constructor refuses inside it into a ConfigError that names `key`, the node of its arguments."""
    try:
        yield
    except REFUSALS as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        reason = "\n".join(str(cause).splitlines()[:4])
        if found := re.search(r"you tried to allocate (\d+) bytes", reason):
            reason = f"{int(found[1]) / 1e9:,.0f} GB of memory are needed at once; choose smaller widths"
        reason = reason if reason.startswith(key) else f"{key}: {reason}"
        raise ConfigError(reason + _way_out(node, key, cause)) from error


def _way_out(node: DictConfig, key: str, cause: BaseException) -> str:
    """For a key that the class does not know: the option that has the keys of this class, or to leave the key out."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
    if not isinstance(cause, TypeError) or unknown is None or unknown[1] not in node:
        return ""
    known: dict[str, Any] = {name: OmegaConf.load(file) for name, file in options(key).items()}
    if any(unknown[1] in option for option in known.values()):
        for name, option in known.items():
            if option.get("_target_") == node.get("_target_") and not option.keys() <= node.keys():
                return f"\nThe keys are those of another option: choose {key}={name}"
    known_keys = [str(name) for name in node if name != unknown[1]]
    return f"\nLeave it out with ~{key}.{unknown[1]}{nearest(unknown[1], known_keys)}"


def check_call(cfg: DictConfig, key: str) -> None:
    """Refuses a node that is made only later, such as a logger, if there is no such class or it has not these keys.

    Raises:
        ConfigError: If `make` would refuse it; the message names the key.
    """
    node = OmegaConf.select(cfg, key)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{key}: a class is needed, {key}._target_=...")
    with _refusals(node, key):
        signature(get_object(node._target_)).bind(**{str(name): None for name in node if not str(name).startswith("_")})


def data_config(
    key: str, name: str, root: Path, image_shape: Sequence[int], allow: str | Sequence[str] | None
) -> DictConfig:
    """A config of data: those of the run folder `name`, or else the option `name` of data/ with images `(C, H, W)`.

    Raises:
        ConfigError: If `name` is neither; the message names `key`.
    """
    if (Path(name) / "config.yaml").is_file():
        cfg = OmegaConf.create({"data": load_config(name).data})
        check_targets(cfg, Path(name) / "config.yaml", allow)
        return cfg
    overrides = [f"data={name}", f"data.root='{root}'", f"data.image_shape={list(image_shape)}"]
    is_open = GlobalHydra.instance().is_initialized()  # true inside a command
    try:
        with nullcontext() if is_open else initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("train", overrides=overrides)
    except MissingConfigException as error:
        options = ", ".join(error.options or [])
        raise ConfigError(f"{key}={name} is not a run folder and not an option of data/: {options}") from error
    return OmegaConf.create({"data": OmegaConf.to_container(cfg.data, resolve=True)})


def check_values(cfg: DictConfig) -> None:
    """Refuses values that Lightning would refuse only later or with a stack trace.

    Raises:
        ConfigError: If a value is wrong; the message names the key.
    """
    if cfg.monitor_mode not in ("min", "max"):
        raise ConfigError(f"monitor_mode={cfg.monitor_mode}: choose min or max")
    if cfg.monitor_mode == "max" and cfg.monitor in LOWER_IS_BETTER:
        raise ConfigError(f"monitor={cfg.monitor} is better when it is lower: set monitor_mode=min")
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed={cfg.seed}: a whole number from 0 to 2^32 - 1 is needed")
    wanted: Any = cfg.expected if OmegaConf.is_dict(cfg.expected) else {}
    is_whole = isinstance(wanted.get("metric"), str) and all(
        isinstance(wanted.get(key), int | float) for key in ("value", "tolerance")
    )
    if cfg.expected is not None and not is_whole:
        raise ConfigError(f"expected={cfg.expected}: null is needed, or an experiment's {{metric, value, tolerance}}")
    every, epochs = cfg.trainer.check_val_every_n_epoch, cfg.trainer.max_epochs
    if every and epochs and 0 < epochs < every:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch={every}: trainer.max_epochs={epochs} ends before the first validation; "
            "trainer.limit_val_batches=0 trains without any"
        )
    interval, size = cfg.trainer.val_check_interval, num_trained_on(_root_=cfg)
    batches = size and size // max(1, cfg.data.batch_size) * cfg.objective.get("updates", 1)  # each comes so many times
    if isinstance(interval, int) and every and batches is not None and interval > batches:
        raise ConfigError(
            f"trainer.val_check_interval={interval}: an epoch has {batches} batches; "
            "choose fewer, a share such as 0.5, or trainer.check_val_every_n_epoch=null to count across epochs"
        )
    _check_weight_prior(cfg)
    if cfg.trainer.log_every_n_steps < 1:
        raise ConfigError(
            f"trainer.log_every_n_steps={cfg.trainer.log_every_n_steps}: at least 1; logger=none logs nothing"
        )


def _check_weight_prior(cfg: DictConfig) -> None:
    std = cfg.get("weight_prior")
    if std is None:
        return
    decay = decay_for(std, _root_=cfg)
    if decay is None:
        raise ConfigError(f"weight_prior={std}: how many training images? Set data.train_size, or data.train_limit")
    given, name = cfg.optimizer.get("weight_decay"), cfg.optimizer._target_
    if given != decay or cfg.optimizer.get("decoupled_weight_decay"):
        raise ConfigError(
            f"weight_prior={std} needs optimizer.weight_decay={decay:.3g}, in the gradient; it is {given} of {name}.\n"
            "Ways out: optimizer=adam (adagrad, sgd, rmsprop, radam) as it is, or weight_prior=null"
        )


def build(cfg: DictConfig, to_train: bool = True) -> tuple[VAE, Images]:
    """Makes the model and the data and checks that they fit, before any data are read.

    Arguments:
        cfg: A resolved config.
        to_train: False for a run that is trained already: what would make its training senseless is not refused then.

    Raises:
        ConfigError: If a part cannot be made or does not fit the others.
    """
    if OmegaConf.select(cfg, "model.context_dim", default=0) is None:
        what = "are given by attributes, and it needs classes" if cfg.data.get("attributes") else "have none"
        raise ConfigError(
            f"{cfg.name}: this model conditions on labels, but the data {what} (data.num_classes=null).\n"
            f"Ways out: model={'cvae' if cfg.data.get('attributes') else 'vae'}, or data with labels such as data=mnist"
        )
    data = make(cfg, "data")
    try:
        model = make(cfg, "model", condition=data.condition, **{part: make(cfg, part) for part in PARTS})
        if to_train:
            if cfg.get("init"):
                make(cfg, "init")(model)
            _check_labels(model, data)
            # Here it is refused before data are read.
            make_optimizer(model.optimizer, model.parameters(), model.device)
        if cfg.trainer.get("compile"):
            # Only the networks, and in place: the keys in checkpoints and the code of the distributions do not change.
            model.encoder.compile()
            model.decoder.compile()
        monitors = [f"val/{term}" for term in check_shapes(model, data.image_shape, to_train)]
        _check_support(model, data)
        if to_train and model.likelihood.mean == "sigmoid":
            _check_sigmoid(model, data)
        if to_train and cfg.monitor not in monitors:
            raise ValueError(f"monitor={cfg.monitor}: for this model choose one of {', '.join(monitors)}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return model, data


def _check_labels(model: VAE, data: Images) -> None:
    if data.labelled_per_batch is not None and not model.objective.learns_labels:
        raise ValueError(
            f"data.labelled_per_batch={data.labelled_per_batch} shows labelled images too often, and "
            "only objective=semi_supervised corrects that: choose model=m2, or data.labelled_per_batch=null"
        )
    if data.labelled is not None and model.needs_labels:
        raise ValueError(
            f"data.labelled={data.labelled}: this model needs the label of every training image. "
            "Ways out: model=m2, or data.labelled=null"
        )


def _check_support(model: VAE, data: Images) -> None:
    support, pixels = support_of(model.likelihood, data.image_shape), data.representation
    if pixels.has_missing and not model.encoder.reads_missing:
        raise ValueError(f"encoder: {type(model.encoder).__name__} cannot read missing values: choose encoder=columns")
    is_grey_allowed = model.likelihood.allow_grey and not pixels.is_real
    if pixels.lies_in(support, data.image_shape) or is_grey_allowed:
        return
    name = type(model.likelihood).__name__
    raise ValueError(f"{name} scores pixels in {support}, but the data are {pixels.title}.\nWays out: {pixels.ways}")


def _check_sigmoid(model: VAE, data: Images) -> None:
    """Refuses what a likelihood whose mean is a sigmoid of the decoder's number would silently do badly."""
    if data.representation.is_real:
        raise ValueError(
            f"likelihood.mean=sigmoid lies in [0, 1], and the data are {data.representation.title}: "
            "choose likelihood.mean=identity"
        )
    if model.decoder.output_bias == "mean":
        raise ValueError(
            "decoder.output_bias=mean: the mean of the likelihood is a sigmoid of what the decoder gives, "
            "choose decoder.output_bias=mean_logit, or likelihood.mean=identity"
        )


def prepare(data: Images, world_size: int = 1) -> None:
    """Fetches and reads the training images, which `world_size` processes will share.

    Raises:
        ConfigError: If files are missing or corrupt, or differ from what the config says.
    """
    try:
        data.check_shares(world_size)
        data.prepare_data()
        data.setup("fit")
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _conditioned(of: str | None, given: str) -> str | None:
    """`log p(x)` or `log p(x|y)`, given something else besides."""
    if of is None or not given:
        return of
    return of.replace(")", f", {given})" if "|" in of else f"|{given})")


def bound(model: VAE, data: Images) -> dict[str, Any]:
    """What the ELBO of the run bounds; two ELBOs can be compared if these values agree."""
    support = support_of(model.likelihood, data.image_shape)
    return {
        "of": _conditioned(model.bounds, model.likelihood.given),
        "representation": data.title,
        "kind": "mass" if support.is_discrete else "density",
        "is_bound": model.has("density") and data.representation.lies_in(support, data.image_shape),
        "units": f"nats per {data.representation.unit}",
    }
