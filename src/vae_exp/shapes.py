"""Whether the parts of a model fit: blank images go through them and their shapes are held against each other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vae_exp.models import VAE

__all__ = ["check_shapes"]


@torch.no_grad()
def check_shapes(model: VAE, image_shape: Sequence[int]) -> None:
    """Sends two blank images `(C, H, W)` through a model, which is left as it was.

    Raises:
        ValueError: If two parts do not fit; it names them and the shapes.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            _check(model, tuple(image_shape))
    finally:
        for module, mode in modes:
            module.training = mode


def _check(model: VAE, image_shape: tuple[int, ...]) -> None:
    x = torch.zeros(2, *image_shape, device=model.device, dtype=model.dtype)  # type: ignore[arg-type]
    c = model.context(torch.zeros(2, dtype=torch.long, device=model.device))
    h = _try("encoder", lambda: model.encoder(x, c))
    _expect("encoder", "features (B, F)", h.dim() == 2 and len(h) == 2, h.shape)
    q = _try("posterior", lambda: model.posterior(h))
    _expect("posterior", "batch (2,)", q.batch_shape == (2,), q.batch_shape)
    p = _try("prior", lambda: model.prior(c))
    _expect("prior", f"the posterior's event {tuple(q.event_shape)}", p.event_shape == q.event_shape, p.event_shape)
    z = q.sample((3,))
    _try("prior", lambda: p.log_prob(z))
    params = _try("decoder", lambda: model.decoder(z.flatten(0, 1), None if c is None else c.repeat(3, 1)))
    px = _try("likelihood", lambda: model.likelihood(params))
    fits = px.batch_shape == (6,) and px.event_shape == image_shape
    _expect("decoder", f"params of images {image_shape} for the likelihood", fits, params.shape[1:])


def _try(part: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{part} does not fit what comes before it: {reason}. See {part} and its options.") from error


def _expect(part: str, needed: str, fits: bool, given: Any) -> None:
    if not fits:
        raise ValueError(f"{part} gives shape {tuple(given)}, needed is {needed}: see {part} and its options")
