"""Whether the parts of a model fit together: blank images go through them, and the shapes are compared."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vae_exp.config import ConfigError
from vae_exp.distributions import is_discrete, sample_of
from vae_exp.models import VAE

__all__ = ["check_shapes", "check_step"]


@torch.no_grad()
def check_shapes(model: VAE, image_shape: Sequence[int], to_train: bool = True) -> list[str]:
    """Sends two blank images `(C, H, W)` through a model and its objective; does not change the model.

    Arguments:
        model: The model.
        image_shape: `(C, H, W)`.
        to_train: Whether to make a training step, too, which an objective may refuse.

    Returns:
        The names of the terms that validation logs.

    Raises:
        ValueError: If two parts do not fit together; it names them and the shapes.
    """
    x, y = _blank(model, image_shape, 2)
    with _left_as_it_was(model):
        model.eval()
        _check(model, x, y)
        terms = _try_objective(model, x, y)
        if to_train:
            model.train()
            with torch.enable_grad():
                _try_objective(model, x, y)
    return terms


def check_step(model: VAE, image_shape: Sequence[int], num_images: int) -> None:
    """Refuses a step on fewer images of a process than the objective compares, or batch normalisation needs, two.

    Raises:
        ConfigError: It names the keys.
    """
    least, name = model.objective.min_images, type(model.objective).__name__
    if num_images < least:
        raise ConfigError(
            f"data.batch_size: each process gets {num_images} image a step, and {name} compares {least} or more.\n"
            "Ways out: a larger data.batch_size, or another objective"
        )
    if num_images != 1:
        return
    try:
        with _left_as_it_was(model):
            model.train()
            _try_objective(model, *_blank(model, image_shape, num_images))
    except ValueError as error:
        normalised = [name for name, part in model.named_children() if any(map(_is_batch_norm, part.modules()))]
        if not normalised:
            raise ConfigError(str(error)) from error
        keys = " ".join(f"{name}.normalization=layer" for name in normalised)
        raise ConfigError(
            f"data.batch_size: each process gets one image a step, {normalised[0]}.normalization=batch needs two.\n"
            f"Ways out: a larger data.batch_size, or {keys}"
        ) from error


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)


def _blank(model: VAE, image_shape: Sequence[int], num_images: int) -> tuple[Tensor, Tensor]:
    x = torch.zeros(num_images, *image_shape, device=model.device, dtype=model.dtype)  # type: ignore[arg-type]
    return x, model.example_y(num_images)


@contextmanager
def _left_as_it_was(model: VAE) -> Iterator[None]:
    """Restores the modes and the buffers of the model, and torch's random state, after what is done inside it."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # An objective may log, but there is no trainer yet.
            warnings.filterwarnings("ignore", "You are trying to `self.log")
            yield
    finally:
        with torch.no_grad():
            for module, mode in modes:
                module.training = mode
            for buffer, before in buffers:
                buffer.copy_(before)


def _check(model: VAE, x: Tensor, y: Tensor) -> None:
    c = model.context(y)
    h = _try("encoder", lambda: model.encoder(x, c))
    _expect("encoder", "features (B, F)", h.dim() == 2 and len(h) == 2, h.shape)
    q = _try("posterior", lambda: model.posterior(h))
    _expect("posterior", "batch (2,)", q.batch_shape == (2,), q.batch_shape)
    z = q.sample((3,))
    p = _try("prior", lambda: model.prior(c))
    if p is None and model.has("prior"):
        raise ValueError("prior=none has no kl and no elbo: choose model=ae, which needs neither, or another prior")
    if p is not None:
        event = tuple(q.event_shape)
        _expect("prior", f"the posterior's event {event}", p.event_shape == q.event_shape, p.event_shape)
        if _space(p) != _space(q):
            raise ValueError(
                f"prior is over {_space(p)}, the posterior over {_space(q)}: "
                "posterior=bernoulli goes with prior=bernoulli, categorical with categorical"
            )
        _try("prior", lambda: p.log_prob(z))
        sample_of(p)
    px = _try("decoder or likelihood", lambda: model.decode(z, c))
    fits = px.batch_shape == (3, 2) and px.event_shape == x.shape[1:]
    _expect(
        "decoder", f"params of images {tuple(x.shape[1:])} for the likelihood", fits, px.batch_shape + px.event_shape
    )


def _try_objective(model: VAE, x: Tensor, y: Tensor) -> list[str]:
    """The names of the terms that are logged for a batch."""
    _, draw = _try("objective", lambda: model.objective(model, x, y, model.step))
    names = ["loss", *_try("objective", lambda: draw.terms)]
    if "kl" in names:
        names.append("elbo")
    if draw.z_mean is not None:
        names.append("active_units")
    return names


def _space(distribution: Distribution) -> str:
    """What a distribution is over, in words for messages."""
    if not is_discrete(distribution):
        return "real numbers"
    support = distribution.support
    is_bits = isinstance(support, constraints.independent) and support.base_constraint is constraints.boolean
    return "bits" if is_bits else repr(support)


def _try(part: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{part} does not fit what comes before it: {reason}. Check {part} and its options."
        ) from error


def _expect(part: str, needed: str, fits: bool, given: Any) -> None:
    if not fits:
        raise ValueError(f"{part} gives shape {tuple(given)}, but needed is {needed}: check {part} and its options")
