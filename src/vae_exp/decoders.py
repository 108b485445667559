"""Decoders `(z, c) -> params`: latents `(N, D)`, context `(N, context_dim)` or None, params `(N, P*C, H, W)`."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

__all__ = ["MLP", "Conv"]


def _with_context(z: Tensor, c: Tensor | None) -> Tensor:
    return z if c is None else torch.cat([z, c], dim=1)


class MLP(nn.Module):
    """A fully connected decoder; the context is appended to the latents.

    Arguments:
        latent_dim: D.
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        params_per_pixel: P, the numbers the likelihood needs for each pixel and channel.
        hidden: Widths of the hidden layers.
        activation: Name of a class in `torch.nn`.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        context_dim: int = 0,
        params_per_pixel: int = 1,
        hidden: Sequence[int] = (500, 500),
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.params_shape = (params_per_pixel * channels, height, width)
        widths = [latent_dim + context_dim, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), getattr(nn, activation)()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], prod(self.params_shape)))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """`(N, D), (N, context_dim) -> (N, P*C, H, W)`."""
        return self.layers(_with_context(z, c)).view(-1, *self.params_shape)


class Conv(nn.Module):
    """The mirror of `encoders.Conv`: linear layers, then transposed convolutions that double the image.

    Arguments:
        latent_dim: D.
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        params_per_pixel: P, the numbers the likelihood needs for each pixel and channel.
        channels: Channels before each doubling.
        hidden: Width of the linear layer that reads z.
        activation: Name of a class in `torch.nn`.

    Raises:
        ValueError: If the image is too small to be halved `len(channels)` times.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        context_dim: int = 0,
        params_per_pixel: int = 1,
        channels: Sequence[int] = (64, 32),
        hidden: int = 256,
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        out_channels, height, width = image_shape
        # The sides from the smallest to the image: 7, 14, 28. An odd side is one more than twice the last.
        heights = [height >> k for k in range(len(channels), -1, -1)]
        widths = [width >> k for k in range(len(channels), -1, -1)]
        if not heights[0] or not widths[0]:
            raise ValueError(
                f"decoder.channels={list(channels)} doubles the image {len(channels)} times, "
                f"too often for image_shape={list(image_shape)}: give fewer channels"
            )
        sizes = [*channels, params_per_pixel * out_channels]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + context_dim, hidden),
            getattr(nn, activation)(),
            nn.Linear(hidden, sizes[0] * heights[0] * widths[0]),
            nn.Unflatten(1, (sizes[0], heights[0], widths[0])),
        ]
        for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            odd = (heights[k + 1] % 2, widths[k + 1] % 2)
            layers += [
                getattr(nn, activation)(),
                nn.ConvTranspose2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1, output_padding=odd),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """`(N, D), (N, context_dim) -> (N, P*C, H, W)`."""
        return self.layers(_with_context(z, c))
