"""log p(x) by importance sampling, in chunks of latents (Burda et al., 2016, arXiv:1509.00519)."""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vae_exp.draws import Draw
from vae_exp.precision import exact

__all__ = ["CHUNK", "Marginal", "importance_sampling", "of_weights", "widest"]

# Numbers in the largest tensor of a chunk of latents: 16 MB; a few such tensors exist at a time.
CHUNK = 2**22


class Marginal(NamedTuple):
    """The result of importance sampling for B images, float64."""

    log_px: Tensor  # (B,), log 1/K sum_k w_k: its exponential is unbiased; its mean lies below log p(x)
    ess: Tensor  # (B,), (sum w)^2 / sum w^2: effective number of latents, from 1 to K (Kong, 1992)
    curve: dict[int, Tensor]  # the bounds of 1, 10, 100, ... and K latents, (B,) each: means over groups of that size

    @property
    def variance(self) -> Tensor:
        """The variance of `log_px`, `(B,)`, nan if K = 1, to first order in that of the mean weight (the delta method).

        With the sample variance s^2 of the weights and their mean m it is `s^2 / (K m^2) = (K / ESS - 1) / (K - 1)`.
        """
        num_samples = max(self.curve)
        spread = (num_samples / self.ess - 1).clamp(min=0)
        return spread / (num_samples - 1) if num_samples > 1 else torch.full_like(spread, torch.nan)


def of_weights(log_w: Tensor) -> Marginal:
    """The result from all weights at once, `(K, B)`."""
    log_px = log_w.logsumexp(dim=0) - log(len(log_w))
    ess = (2 * log_w.logsumexp(dim=0) - (2 * log_w).logsumexp(dim=0)).exp()
    return Marginal(log_px, ess, {len(log_w): log_px})


@torch.no_grad()
def importance_sampling(draw: Draw, num_samples: int, progress: Callable[[int], object] = lambda num: None) -> Marginal:
    """Scores images with K fresh latents each (Burda et al., 2016); memory does not grow with K.

    Arguments:
        draw: A draw of the images; its posterior is used, its latents are not.
        num_samples: K.
        progress: Called after each chunk with the number of latents, of all images, that were scored.

    Raises:
        ValueError: If K is less than 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: at least 1 latent per image is needed")
    sizes = [10**i for i in range(20) if 10**i < num_samples] + [num_samples]
    # A chunk has one of these sizes, so it consists of whole groups of the smaller sizes and fits into the larger ones.
    most = CHUNK // (widest(draw) * len(draw.x))
    chunk = max((size for size in sizes if size <= most), default=1)
    groups = {size: _GroupMeans(size) for size in sizes}
    squares = torch.full((len(draw.x),), -torch.inf, dtype=exact(draw.x), device=draw.x.device)
    for done in range(0, num_samples, chunk):
        log_w = draw.resample(min(chunk, num_samples - done)).log_w.to(squares.dtype)
        squares = squares.logaddexp((2 * log_w).logsumexp(dim=0))
        for group in groups.values():
            group.add(log_w)
        progress(log_w.numel())
    total = groups[num_samples].mean + log(num_samples)
    return Marginal(
        log_px=groups[num_samples].mean,
        ess=(2 * total - squares).exp(),
        curve={size: group.mean for size, group in groups.items()},
    )


@torch.no_grad()
def widest(draw: Draw) -> int:
    """Numbers in the largest tensor that scoring makes, for each latent of an image.

    This may be the output of a layer, the params of 256 levels per pixel, or, in a prior, each latent compared with
    each component.
    """
    with _Sizes() as sizes:
        _ = draw.resample(1).log_w
    return max(1, sizes.most // len(draw.x))


class _Sizes(TorchFunctionMode):
    """Records how many numbers the largest tensor holds."""

    most = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.most = max(self.most, Tensor.numel(result))
        return result


class _GroupMeans:
    """The mean of `log 1/K sum_k w_k` over consecutive groups of K weights; an incomplete last group is left out."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.total: Tensor | float = 0.0
        self.count = 0
        self._open: Tensor | None = None  # log sum of the weights of the group that is not full
        self._filled = 0

    def add(self, log_w: Tensor) -> None:
        """Adds weights `(K', B)`: whole groups, or at most what is left of one group."""
        if self.size <= len(log_w):
            whole = len(log_w) // self.size
            means = log_w[: whole * self.size].unflatten(0, (whole, self.size)).logsumexp(dim=1) - log(self.size)
            self.total, self.count = self.total + means.sum(dim=0), self.count + whole
            return
        part = log_w.logsumexp(dim=0)
        self._open = part if self._open is None else self._open.logaddexp(part)
        self._filled += len(log_w)
        if self._filled == self.size:
            self.total, self.count = self.total + self._open - log(self.size), self.count + 1
            self._open, self._filled = None, 0

    @property
    def mean(self) -> Tensor:
        """`(B,)`."""
        assert isinstance(self.total, Tensor)
        return self.total / self.count
