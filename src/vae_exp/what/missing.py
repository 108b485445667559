"""`p(x_mis | x_known)`: what a model predicts for the pixels that it was not given.

Pseudo-Gibbs: Rezende et al. (2014), arXiv:1401.4082; with acceptance: Mattei & Frellsen (2018), arXiv:1802.04826.
Importance resampling: Mattei & Frellsen (2019), arXiv:1812.02633.
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from math import ceil, log
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data.picture import content, decode
from vae_exp.draws import Draw, sample
from vae_exp.estimators.importance import CHUNK, Marginal, importance_sampling
from vae_exp.models import VAE
from vae_exp.precision import exact

__all__ = ["Filled", "Missing", "make_mask"]


def make_mask(mask: str, share: float, x: Tensor) -> Tensor:
    """Which pixels of images `(B, C, H, W)` are known, `(B, 1, H, W)`.

    Arguments:
        mask: `half`: the lower half is missing; `random`: each pixel is missing independently; `box`: the middle is
            missing, half as high and wide as the image; or a picture, whose dark pixels are missing.
        share: Probability of a pixel to be missing with `random`.
        x: The images.

    Raises:
        ConfigError: If there is no such mask, if it differs in size from the images, or if no pixel is missing.
    """
    size, _, height, width = x.shape
    known = torch.ones(size, 1, height, width, dtype=torch.bool, device=x.device)
    if mask == "half":
        known[..., height // 2 :, :] = False
    elif mask == "box":
        h, w = max(1, height // 2), max(1, width // 2)
        top, left = (height - h) // 2, (width - w) // 2
        known[..., top : top + h, left : left + w] = False
    elif mask == "random":
        if not 0 < share <= 1:
            raise ConfigError(f"share={share}: the share of missing pixels must be above 0 and at most 1")
        known = torch.rand(known.shape, device=x.device) >= share
    else:
        known &= _read_mask(Path(mask), height, width).to(x.device)
        if known.all():
            raise ConfigError(f"mask={mask} leaves no pixel missing: missing pixels must be black")
    return known


def _read_mask(path: Path, height: int, width: int) -> Tensor:
    from PIL import Image

    if not path.is_file():
        raise ConfigError(f"mask={path}: choose half, random, box or a picture that is black where pixels are missing")
    try:
        read = content(path)
        pixels = decode(read, str(path), (1, height, width))
        with Image.open(BytesIO(read)) as image:
            given = image.size
    except (OSError, ValueError) as error:
        raise ConfigError(f"mask={path}: {error}") from error
    if given != (width, height):
        raise ConfigError(f"mask={path} has {given[0]} by {given[1]} pixels, the images have {width} by {height}")
    return torch.from_numpy(pixels.copy()) > 127


class Filled(NamedTuple):
    """B images, filled in. The known pixels stay the same, to the bit."""

    mean: Tensor  # (B, C, H, W), E[x | x_known] over the latents that were found
    drawn: Tensor  # (B, C, H, W), E[x | z] at one of them, drawn by its weight
    log_score: Tensor  # (B,) float64, log sum_k w_k p(x_mis | z_k) of the true x_mis, nats
    trust: Tensor  # (B,), the effective sample size; for chains the share of accepted proposals
    known: Tensor  # bool, (B, 1, H, W)


class Missing:
    """B images with missing pixels, and M chains of fillings for each.

    A method finds latents `z_k`, with weights `w_k` that sum to one, to represent `p(z | x_known)`. It uses x_known
    alone, so `sum_k w_k p(x_mis | z_k)` is a prediction, a distribution over all x_mis. The log of what it gives to the
    true x_mis is a score that favours no method (Gneiting & Raftery, 2007). With the number of latents the score grows
    towards `log p(x_mis | x_known)`, slowly if many pixels are missing.

    Arguments:
        model: A model with a prior.
        x: The true images, `(B, C, H, W)`; the missing pixels are used for the scores alone.
        y: Labels `(B,)`, for a model that conditions on them.
        known: Which pixels are known, bool, `(B, 1, H, W)`.
        num_chains: M.
        tell: Called after each step with the number of latents that were drawn.

    Raises:
        NoMeaningError: If the model has no prior, or its likelihood does not score single pixels.
    """

    def __init__(
        self,
        model: VAE,
        x: Tensor,
        y: Tensor | None,
        known: Tensor,
        num_chains: int,
        tell: Callable[[int], object] = lambda num: None,
    ) -> None:
        model.require("density")
        if num_chains < 1:
            raise ConfigError(f"num_chains={num_chains}: at least 1 is needed")
        self.model, self.x, self.known, self.num_chains, self.tell = model, x, known, num_chains, tell
        self.y = y if model.context_dim else None
        self.c = model.context(self.y)
        self.rows = x.repeat(num_chains, 1, 1, 1)  # chain by chain
        self.rows_known = known.repeat(num_chains, 1, 1, 1)
        self.rows_y = None if self.y is None else torch.cat([self.y] * num_chains)
        self.rows_c = None if self.c is None else self.c.repeat(num_chains, 1)
        self.prior = model.prior(self.rows_c)
        # The chains start at images drawn from the model.
        self.z = self.prior.sample(torch.Size((1,) if self.prior.batch_shape else (1, len(self.rows))))
        self.px = model.decode(self.z, self.rows_c)
        if not isinstance(self.px, Independent) or self.px.base_dist.event_shape:
            name = type(model.likelihood).__name__
            raise NoMeaningError(f"likelihood: {name} does not score single pixels (an Independent over them does)")
        self._fill()

    @torch.no_grad()
    def burn_in(self, num_steps: int) -> None:
        """Pseudo-Gibbs (Rezende et al., 2014): `z ~ q(z | x)` and `x_mis ~ p(x_mis | z)` in turn."""
        for _ in range(num_steps):
            self._move(sample(self.model.encode(self.rows, self.rows_y), 1)[0])

    @torch.no_grad()
    def gibbs(self, num_steps: int) -> Filled:
        """Pseudo-Gibbs where `z' ~ q(z | x)` is a proposal that is accepted or refused (Mattei & Frellsen, 2018), so
        the chains converge to `p(x_mis, z | x_known)` even if q is wrong. All steps have the same weight."""
        found, size = _Found(self.x, self.known), (self.num_chains, len(self.x))
        weights = torch.zeros(size, device=self.x.device)
        truth, accepted = self.x.repeat(self.num_chains, 1, 1, 1), torch.zeros_like(weights)
        for _ in range(num_steps):
            q = self.model.encode(self.rows, self.rows_y)
            z, log_q = sample(q, 1)
            ratio = self._log_joint(z, self.model.decode(z, self.rows_c)) - self._log_joint(self.z, self.px)
            ratio = ratio + q.log_prob(self.z) - (q.log_prob(z) if log_q is None else log_q)
            is_accepted = torch.rand_like(ratio) < ratio.exp()
            self._move(torch.where(is_accepted[..., None], z, self.z))
            accepted += is_accepted.view(size)
            log_p = _score(self.px, truth, ~self.rows_known)
            found.add(weights, self.px.mean[0].unflatten(0, size), log_p.view(size))
        return found.filled(accepted.mean(dim=0) / num_steps)

    @torch.no_grad()
    def importance(self, num_samples: int) -> tuple[Filled, Marginal]:
        """Importance resampling (Mattei & Frellsen, 2019): `z_k ~ q(z)`, `w_k ~ p(x_known | z_k) p(z_k) / q(z_k)`.

        The proposal q is the mean of `q(z | x)` over the M fillings of an image: equally many latents from each, K in
        all. It also gives log p(x_known).
        """
        q, chains, size = self.model.encode(self.rows, self.rows_y), self.num_chains, len(self.x)
        prior, rounds = self.model.prior(self.c), ceil(num_samples / chains)
        found = _Found(self.x, self.known)
        params = self.model.likelihood.params_per_pixel
        most = max(1, CHUNK // (chains * max(params * self.x.numel(), self.z.numel())))
        for done in range(0, rounds, most):
            z = sample(q, min(most, rounds - done))[0].view(-1, size, self.z.shape[-1])  # (K, B, D)
            under_each = q.log_prob(z.repeat(1, chains, 1)).view(len(z), chains, size)
            log_q = under_each.logsumexp(dim=1) - log(chains)
            px = self.model.decode(z, self.c)
            log_w = _score(px, self.x, self.known) + prior.log_prob(z) - log_q
            found.add(log_w, px.mean, _score(px, self.x, ~self.known))
            self.tell(log_w.numel())
        ess, num = (2 * found.total - found.squares).exp(), rounds * chains
        log_known = found.total - log(num)
        return found.filled(ess), Marginal(log_known, ess, {num: log_known})

    @torch.no_grad()
    def log_p(self, num_samples: int) -> Marginal:
        """`log p(x)` of the whole image (with a label `log p(x | y)`), by importance sampling from `q(z | x)`."""
        q = self.model.encode(self.x, self.y)
        decode = partial(self.model.decode, c=self.c)
        return importance_sampling(
            Draw(self.x, sample(q, 1)[0], q, self.model.prior(self.c), decode), num_samples, self.tell
        )

    def _move(self, z: Tensor) -> None:
        self.z, self.px = z, self.model.decode(z, self.rows_c)
        self._fill()
        self.tell(len(self.rows))

    def _fill(self) -> None:
        self.rows = torch.where(self.rows_known, self.rows, self.px.sample()[0])

    def _log_joint(self, z: Tensor, px: Distribution) -> Tensor:
        return px.log_prob(self.rows) + self.prior.log_prob(z)


def _score(px: Distribution, x: Tensor, where: Tensor) -> Tensor:
    """`log p(x | z)` of the pixels chosen by `where`: `(K, B)`."""
    each = px.base_dist.log_prob(x.expand(*px.batch_shape[:-1], *x.shape))  # type: ignore[attr-defined]
    return torch.where(where, each, 0).sum(dim=(-3, -2, -1))


class _Found:
    """Means over weighted latents that are added in chunks."""

    def __init__(self, x: Tensor, known: Tensor) -> None:
        self.x, self.known = x, known
        self.mean, self.drawn = torch.zeros_like(x), torch.zeros_like(x)
        # log of the sums of w_k, w_k^2 and w_k p(x_mis | z_k)
        self.total, self.squares, self.joint = torch.full((3, len(x)), -torch.inf, dtype=exact(x), device=x.device)

    def add(self, log_w: Tensor, images: Tensor, log_p: Tensor) -> None:
        """Latents with log weights `(K, B)`, mean images `(K, B, C, H, W)` and `log p(x_mis | z)` `(K, B)`."""
        log_w = log_w.to(self.total.dtype)
        chunk = log_w.logsumexp(dim=0)
        total = self.total.logaddexp(chunk)
        weights = (log_w - total).exp().to(images.dtype)
        kept = (self.total - total).exp().to(images.dtype)
        self.mean = torch.einsum("b,bchw->bchw", kept, self.mean) + torch.einsum("kb,kbchw->bchw", weights, images)
        # One of all so far, chosen by weight: from this chunk with the probability of the chunk's share.
        chosen = images[Categorical(logits=log_w.T).sample(), torch.arange(len(chunk), device=log_w.device)]
        self.drawn = torch.where((torch.rand_like(kept) < kept)[:, None, None, None], self.drawn, chosen)
        self.total, self.squares = total, self.squares.logaddexp((2 * log_w).logsumexp(dim=0))
        self.joint = self.joint.logaddexp((log_w + log_p).logsumexp(dim=0))

    def filled(self, trust: Tensor) -> Filled:
        mean, drawn = (torch.where(self.known, self.x, images) for images in (self.mean, self.drawn))
        return Filled(mean, drawn, self.joint - self.total, trust, self.known)
