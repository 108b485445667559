"""Encoders `(x, c) -> h`: images `(B, C, H, W)`, context `(B, context_dim)` or None, features `(B, F)`."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

__all__ = ["MLP", "Conv"]


class MLP(nn.Module):
    """A fully connected encoder; the context is appended to the pixels.

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        hidden: Widths of the layers before the last.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        context_dim: int = 0,
        hidden: Sequence[int] = (500,),
        out_features: int = 500,
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        widths = [prod(image_shape) + context_dim, *hidden, out_features]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), getattr(nn, activation)()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B, context_dim) -> (B, F)`."""
        h = x.flatten(1)
        return self.layers(h if c is None else torch.cat([h, c], dim=1))


class Conv(nn.Module):
    """Convolutions that halve the image (kernel 4, stride 2), then one linear layer.

    The context enters as constant channels, one for each of its entries. Any image is taken whose
    sides survive the halvings.

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        channels: Channels after each halving.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.

    Raises:
        ValueError: If the image is too small to be halved `len(channels)` times.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        context_dim: int = 0,
        channels: Sequence[int] = (32, 64),
        out_features: int = 256,
        activation: str = "ReLU",
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        height, width = height >> len(channels), width >> len(channels)
        if not height or not width:
            raise ValueError(
                f"encoder.channels={list(channels)} halves the image {len(channels)} times, "
                f"too often for image_shape={list(image_shape)}: give fewer channels"
            )
        sizes = [in_channels + context_dim, *channels]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)]
            layers += [getattr(nn, activation)()]
        layers += [nn.Flatten(), nn.Linear(sizes[-1] * height * width, out_features)]
        self.layers = nn.Sequential(*layers, getattr(nn, activation)())

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B, context_dim) -> (B, F)`."""
        if c is not None:
            maps = c[:, :, None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, maps], dim=1)
        return self.layers(x)
