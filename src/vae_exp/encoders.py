"""Encoders `(x, c) -> h`: images `(B, C, H, W)`, context `(B, context_dim)` or None, features `(B, F)`.

What lies between two layers is a normalisation, if any, and an activation. `layer` (Ba et al., 2016) normalises
each image by itself, a feature map over channels and pixels together. `batch` (Ioffe & Szegedy, 2015) couples
the images of a training batch, so that its ELBO is no sum over images; it needs two of them at least. Validation
and test use the running means: their images are scored one by one, and what they log is a bound as ever.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

__all__ = ["MLP", "Conv", "ResNet"]


class MLP(nn.Module):
    """A fully connected encoder; the context is appended to the pixels.

    Without hidden layers and with `Identity` for an activation it is one linear map (`encoder=linear`).

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        hidden: Widths of the layers before the last.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the hidden layers.

    Raises:
        ValueError: If there is no such activation or normalisation.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        context_dim: int = 0,
        hidden: Sequence[int] = (500,),
        out_features: int = 500,
        activation: str = "ReLU",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        act, norm = _activation(activation), _normalization(normalization, of_maps=False)
        layers: list[nn.Module] = []
        widths = [prod(image_shape) + context_dim, *hidden]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), *norm(fan_out), act()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_features), act())

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
        normalization: `none`, `batch` or `layer`, of the feature maps.

    Raises:
        ValueError: If the image is too small to be halved `len(channels)` times, or there is no such
            activation or normalisation.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        context_dim: int = 0,
        channels: Sequence[int] = (32, 64),
        out_features: int = 256,
        activation: str = "ReLU",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        act, norm = _activation(activation), _normalization(normalization, of_maps=True)
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
            layers += [nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1), *norm(fan_out), act()]
        layers += [nn.Flatten(), nn.Linear(sizes[-1] * height * width, out_features), act()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B, context_dim) -> (B, F)`."""
        return self.layers(_with_maps(x, c))


class ResNet(nn.Module):
    """Stages of residual blocks, activations first (He et al., 2016), then one linear layer.

    A convolution of kernel 3 leads into each stage; from the second stage on it has stride 2 and halves the
    image, an odd side rounded up. The context enters as constant channels, one for each of its entries.

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        channels: Channels of each stage.
        blocks: Residual blocks in each stage.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the feature maps.

    Raises:
        ValueError: If there is no stage or no block, if a stage would halve a single pixel, or if there is no
            such activation or normalisation.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        context_dim: int = 0,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        out_features: int = 256,
        activation: str = "ReLU",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        act, norm = _activation(activation), _normalization(normalization, of_maps=True)
        if not channels or blocks < 1:
            raise ValueError(
                f"encoder.channels={list(channels)}, encoder.blocks={blocks}: at least one stage of one block is needed"
            )
        in_channels, height, width = image_shape
        halvings = len(channels) - 1
        if halvings and max(height, width) <= 2 ** (halvings - 1):
            raise ValueError(
                f"encoder.channels={list(channels)} halves the image {halvings} times, "
                f"too often for image_shape={list(image_shape)}: give fewer channels"
            )
        layers: list[nn.Module] = []
        for k, (fan_in, fan_out) in enumerate(pairwise([in_channels + context_dim, *channels])):
            layers.append(nn.Conv2d(fan_in, fan_out, kernel_size=3, stride=2 if k else 1, padding=1))
            layers += [_residual(fan_out, act, norm, blocks * len(channels)) for _ in range(blocks)]
        height, width = -(-height >> halvings), -(-width >> halvings)
        layers += [*norm(channels[-1]), act(), nn.Flatten()]
        layers += [nn.Linear(channels[-1] * height * width, out_features), act()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B, context_dim) -> (B, F)`."""
        return self.layers(_with_maps(x, c))


def _with_maps(x: Tensor, c: Tensor | None) -> Tensor:
    return x if c is None else torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def _residual(width: int, act: type[nn.Module], norm: Callable[[int], list[nn.Module]], depth: int) -> _Residual:
    """One of `depth` blocks that keep channels and size."""
    first, last = (nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(2))
    # Variances of branches add up: with 1 / depth each, a deep network starts as large as one of one block. With
    # zeros it would too, but then the first step does not reach the first convolution.
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(depth**-0.5)
    return _Residual(*norm(width), act(), first, *norm(width), act(), last)


def _activation(name: str) -> type[nn.Module]:
    found = getattr(nn, str(name), None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"encoder.activation={name}: torch.nn has no such class; it has ReLU, GELU, SiLU, Tanh, ...")
    return found


def _normalization(kind: str, of_maps: bool) -> Callable[[int], list[nn.Module]]:
    """What makes the normalisation of so many features or feature maps, a list of none or one."""
    kinds: dict[str, Callable[[int], list[nn.Module]]] = {
        "none": lambda width: [],
        "batch": lambda width: [nn.BatchNorm2d(width) if of_maps else nn.BatchNorm1d(width)],
        "layer": lambda width: [nn.GroupNorm(1, width) if of_maps else nn.LayerNorm(width)],
    }
    if kind not in kinds:
        raise ValueError(f"encoder.normalization={kind}: choose none, batch or layer")
    return kinds[kind]
