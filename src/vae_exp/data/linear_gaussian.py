"""Data with a known density: drawn from a linear-Gaussian model, which is probabilistic PCA."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from vae_exp.data.split import Source, Split
from vae_exp.precision import on_cpu


@final
class LinearGaussian(Source):
    """`x = W z + b + noise * eps` with z and eps standard normal (Tipping & Bishop, 1999).

    A VAE with a linear decoder, a diagonal posterior on linear features and likelihood=sse with the scale `noise` can
    reach the ELBO of the best mean-field posterior; with a richer posterior it can reach `log_prob`.

    Args:
        image_shape: (C, H, W), the shape of the N = C H W numbers of an x.
        latent_dim: Width of z, D.
        noise: Standard deviation of the noise, the same for each number.
        train_size: Images to train on; the number does not change the images to validate or test on.
        val_size: Images to validate on.
        test_size: Images to test on.
        seed: Fixes W `(N, D)`, normal numbers with variance 1 / D, b `(N,)`, standard normal numbers, and the draws.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        noise: float,
        train_size: int,
        val_size: int,
        test_size: int,
        seed: int,
    ) -> None:
        sizes = {"train_size": train_size, "val_size": val_size, "test_size": test_size}
        for name, size in {"latent_dim": latent_dim, **sizes}.items():
            if size < 1:
                raise ValueError(f"data.source.{name}={size}: at least 1 is needed")
        if noise <= 0:
            raise ValueError(f"data.source.noise={noise}: a positive standard deviation is needed")
        self.image_shape = tuple(image_shape)
        self.noise = noise
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self.weight = rng.standard_normal((math.prod(self.image_shape), latent_dim)) / math.sqrt(latent_dim)
        self.bias = rng.standard_normal(len(self.weight))

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train", "val" and "test", float32, without labels."""
        return {name: self._make(size, stream) for stream, (name, size) in enumerate(self.sizes.items(), start=1)}

    def log_prob(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B,)`, float64, nats: `log p(x) = log N(x; b, W W^T + noise^2 I)`, exactly."""
        covariance = self.weight @ self.weight.T + self.noise**2 * np.eye(len(self.weight))
        factor = torch.from_numpy(np.linalg.cholesky(covariance))
        deviations = on_cpu(x.detach()).flatten(1) - torch.from_numpy(self.bias)
        white = torch.linalg.solve_triangular(factor, deviations.T, upper=False)
        log_scale = factor.diagonal().log().sum()
        return -0.5 * white.square().sum(0) - log_scale - 0.5 * len(factor) * math.log(2 * math.pi)

    def _make(self, size: int, stream: int) -> Split:
        rng = np.random.default_rng([self.seed, stream])
        z = rng.standard_normal((size, self.weight.shape[1]))
        x = z @ self.weight.T + self.bias + self.noise * rng.standard_normal((size, len(self.weight)))
        return Split(torch.from_numpy(x).float().reshape(size, *self.image_shape), torch.full((size,), -1))
