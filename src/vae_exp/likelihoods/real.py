"""Densities on the real line. Gaussian: arXiv:1312.6114. Sigma-VAE: arXiv:2006.13202."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal as TorchNormal

from vae_exp.likelihoods.scales import Mean, bounded, check_bounds, check_mean, check_params, check_positive, mean_of
from vae_exp.parts import Likelihood
from vae_exp.precision import exact

__all__ = ["Gaussian", "GaussianPixels", "GaussianShared", "Laplace", "Normal", "SigmaVAE"]


class Normal(Likelihood):
    """`p(x | z) = N(x; params, scale^2)`, one fixed scale for every pixel.

    With scale = sqrt(1/2), `-log p(x | z) = sum (x - params)^2 + (CHW / 2) log pi`: the sum of squared
    errors (`sse`) plus the constant that makes it a density.

    Arguments:
        scale: Standard deviation of a pixel, in units of the pixel range [0, 1].
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = check_positive("scale", scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchNormal(params, self.scale, validate_args=False), 3, validate_args=False)


class Gaussian(Likelihood):
    """`p(x | z) = N(x; mu, sigma^2)`, where the decoder gives mu and sigma of each pixel (Kingma & Welling, 2014).

    If sigma could approach 0, the density at a pixel could grow without limit and training would do nothing else.
    So `log sigma` is a sigmoid that goes from `log min_scale` to `log max_scale`; in the paper it has no bounds, and
    the decoder gives `log sigma^2`.

    Arguments:
        min_scale: Smallest standard deviation, in units of the pixel range [0, 1]. None, as max_scale: no bounds.
        max_scale: Largest standard deviation.
        params_per_pixel: 2. It is in the yaml so that the decoder can read it.
        mean: `identity`: mu is the decoder's output. `sigmoid`: mu is its sigmoid, in [0, 1] like the pixels.
    """

    def __init__(
        self,
        min_scale: float | None = 0.01,
        max_scale: float | None = 1.0,
        params_per_pixel: int = 2,
        mean: Mean = "identity",
    ) -> None:
        super().__init__()
        self.mean = check_mean(mean)
        self.params_per_pixel = check_params(params_per_pixel, 2)
        self.limits: tuple[float, float] | None = None
        if min_scale is not None or max_scale is not None:
            self.limits = check_bounds(min_scale, max_scale, "; without bounds both null")

    def forward(self, params: Tensor) -> Independent:
        """`(..., 2C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        mu, raw = params.chunk(2, dim=-3)
        scale = (raw / 2).exp() if self.limits is None else bounded(raw, *self.limits)
        normal = TorchNormal(mean_of(mu, self.mean), scale, validate_args=False)
        return Independent(normal, 3, validate_args=False)


class GaussianShared(Likelihood):
    """`p(x | z) = N(x; mu, sigma^2)`, mu from the decoder, one learned sigma for all pixels of all images.

    Arguments:
        init_scale: sigma before training, in units of the pixel range [0, 1].
        mean: The same as for `Gaussian`.
    """

    def __init__(self, init_scale: float = 0.1, mean: Mean = "identity") -> None:
        super().__init__()
        self.mean = check_mean(mean)
        self.log_scale = nn.Parameter(torch.tensor(math.log(check_positive("init_scale", init_scale))))

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        normal = TorchNormal(mean_of(params, self.mean), self.log_scale.exp(), validate_args=False)
        return Independent(normal, 3, validate_args=False)


class GaussianPixels(Likelihood):
    """`p(x | z) = N(x; mu, diag(sigma^2))`, mu from the decoder, sigma of each pixel learned, the same for all images.

    A pixel that is the same in all images has a density without limit: give it noise (`data.dequantize=true`).

    Arguments:
        image_shape: `(C, H, W)`.
        init_scale: Each sigma before training, in units of the pixel range [0, 1].
        mean: The same as for `Gaussian`.
    """

    def __init__(self, image_shape: Sequence[int], init_scale: float = 0.1, mean: Mean = "identity") -> None:
        super().__init__()
        self.mean = check_mean(mean)
        start = math.log(check_positive("init_scale", init_scale))
        self.log_scale = nn.Parameter(torch.full(tuple(image_shape), start))

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        normal = TorchNormal(mean_of(params, self.mean), self.log_scale.exp(), validate_args=False)
        return Independent(normal, 3, validate_args=False)


class Laplace(Likelihood):
    """`p(x | z) = exp(-|x - params| / scale) / (2 scale)` for each pixel: absolute errors as a density.

    Arguments:
        scale: b, in units of the pixel range [0, 1]; the standard deviation is `sqrt(2) b`.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = check_positive("scale", scale)

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent Laplace, batch `(...)`, event `(C, H, W)`."""
        return Independent(TorchLaplace(params, self.scale, validate_args=False), 3, validate_args=False)


class SigmaVAE(Likelihood):
    """`p(x | z) = N(x; mu, sigma^2)` with sigma at its optimum, the root mean squared error (Rybkin et al., 2021).

    In training, sigma is the root mean squared error of the batch, over all its images, latents and pixels. No gradient
    goes through sigma, because at the optimum the gradient is zero. The training ELBO is not a bound, because sigma is
    computed from the images that it scores. `fit` sets sigma to the root mean squared error of the training set.
    Validation and test use that number: the likelihood is then an ordinary normal, and the ELBO is a bound.

    Arguments:
        min_scale: Smallest sigma, in units of the pixel range [0, 1].
        mean: The same as for `Gaussian`.
    """

    scale: Tensor

    def __init__(self, min_scale: float = 0.001, mean: Mean = "identity") -> None:
        super().__init__()
        self.mean = check_mean(mean)
        self.min_scale = check_positive("min_scale", min_scale)
        self.register_buffer("scale", torch.zeros(()))  # samples are means until `fit` is called

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called, on this object or before the checkpoint that was loaded into it was saved."""
        return self.scale.item() > 0

    def forward(self, params: Tensor) -> Independent:
        """`(..., C, H, W) ->` Independent normal, batch `(...)`, event `(C, H, W)`."""
        normal = TorchNormal(mean_of(params, self.mean), self.scale, validate_args=False)
        if self.training:
            return _BatchScaled(normal, self.min_scale)
        return Independent(normal, 3, validate_args=False)

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Distribution, Tensor]], reduce: Callable[[Tensor], Tensor]) -> None:
        """Sets sigma to its maximum-likelihood value over a data set.

        Arguments:
            pairs: p(x | z), batch `(K, B)`, and x, `(B, C, H, W)`.
            reduce: Sums a tensor over the processes.
        """
        squares, count = torch.zeros((), dtype=exact(self.scale), device=self.scale.device), 0
        for px, x in pairs:
            errors = (x - px.mean).square()
            squares += errors.sum(dtype=squares.dtype)
            count += errors.numel()
        squares, count = reduce(torch.stack([squares, squares.new_tensor(count)])).tolist()
        self.scale.fill_(max(math.sqrt(squares / count), self.min_scale))


class _BatchScaled(Independent):
    """Normals that score with the root mean squared error of the batch, and draw samples with the given scale."""

    def __init__(self, normal: TorchNormal, min_scale: float) -> None:
        super().__init__(normal, 3, validate_args=False)
        self.min_scale = min_scale

    def log_prob(self, value: Tensor) -> Tensor:
        loc = self.base_dist.loc
        scale = (value - loc.detach()).square().mean().sqrt().clamp(min=self.min_scale)
        return TorchNormal(loc, scale, validate_args=False).log_prob(value).sum(dim=(-3, -2, -1))
