"""Encoders `(x, c) -> h`: images `(B, C, H, W)`, context `(B, context_dim)` or None, features `(B, F)`.

Between two layers there are an optional normalisation and an activation. `layer` (Ba et al., 2016, arXiv:1607.06450)
normalises each image by itself, a feature map over channels and pixels together. `batch` (Ioffe & Szegedy, 2015,
arXiv:1502.03167) couples the images of a training batch, so its ELBO is not a sum over images; it needs at least two
images. Validation and test use the running means: they score each image by itself, and what they log is a bound.
`ResNet`: arXiv:1603.05027.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from vae_exp.columns import columns_of, moments, on_line
from vae_exp.layers import activation_class, check_inputs, normalization_of, residual
from vae_exp.parts import Part

__all__ = ["MLP", "Columns", "Conv", "ResNet"]


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"none": torch.positive, "log1p": torch.log1p}


class _Encoder(Part):
    """What all encoders share: `layers`, and what goes into them."""

    layers: nn.Sequential

    def __init__(self, image_shape: Sequence[int], context_dim: int, transform: str) -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            raise ValueError(f"encoder.transform={transform}: choose {' or '.join(TRANSFORMS)}")
        self.transform = TRANSFORMS[transform]
        self.image_shape = tuple(image_shape)
        self.context_dim = context_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B, context_dim) -> (B, F)`."""
        check_inputs("encoder", x, self.image_shape, c, self.context_dim)
        return self.layers(self._joined(self.transform(x), c))

    def _joined(self, x: Tensor, c: Tensor | None) -> Tensor:
        return x if c is None else torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class MLP(_Encoder):
    """A fully connected encoder; the context is appended to the pixels.

    Without hidden layers and with the activation `Identity` it is one linear map (`encoder=linear`).

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        hidden: Widths of the layers before the last.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the hidden layers.
        transform: `none`, or `log1p`, the logarithm of counts plus 1 (Lopez et al., 2018).

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
        transform: str = "none",
    ) -> None:
        super().__init__(image_shape, context_dim, transform)
        act, norm = activation_class("encoder", activation), normalization_of("encoder", normalization, of_maps=False)
        layers: list[nn.Module] = []
        widths = [prod(image_shape) + context_dim, *hidden]
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), *norm(fan_out), act()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_features), act())

    def _joined(self, x: Tensor, c: Tensor | None) -> Tensor:
        return x.flatten(1) if c is None else torch.cat([x.flatten(1), c], dim=1)


class Conv(_Encoder):
    """Convolutions that halve the image (kernel 4, stride 2), then one linear layer.

    The context enters as constant channels, one for each of its entries. The image may have any size that can be halved
    that often.

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        channels: Channels after each halving.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the feature maps.
        transform: `none`, or `log1p`, the logarithm of counts plus 1 (Lopez et al., 2018).

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
        transform: str = "none",
    ) -> None:
        super().__init__(image_shape, context_dim, transform)
        act, norm = activation_class("encoder", activation), normalization_of("encoder", normalization, of_maps=True)
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


class ResNet(_Encoder):
    """Stages of residual blocks, activations first (He et al., 2016), then one linear layer.

    Each stage begins with a convolution of kernel 3; from the second stage on it has stride 2 and halves the image,
    with odd sides rounded up. The context enters as constant channels, one for each of its entries.

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        channels: Channels of each stage.
        blocks: Residual blocks in each stage.
        out_features: Width F of the last layer, which the posterior reads.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the feature maps.
        transform: `none`, or `log1p`, the logarithm of counts plus 1 (Lopez et al., 2018).

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
        transform: str = "none",
    ) -> None:
        super().__init__(image_shape, context_dim, transform)
        act, norm = activation_class("encoder", activation), normalization_of("encoder", normalization, of_maps=True)
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
            layers += [residual(fan_out, act, norm, blocks * len(channels)) for _ in range(blocks)]
        height, width = -(-height >> halvings), -(-width >> halvings)
        layers += [*norm(channels[-1]), act(), nn.Flatten()]
        layers += [nn.Linear(channels[-1] * height * width, out_features), act()]
        self.layers = nn.Sequential(*layers)


class Columns(Part):
    """A fully connected encoder of the rows of a table, each column in its own form; missing entries are zeros.

    Numbers have mean 0 and variance 1 over the training rows, after a logarithm if they are positive or counts (plus
    1); a category is one-hot.

    Arguments:
        columns: The columns, see `vae_exp.columns.columns_of`.
        context_dim: As of `MLP`.
        hidden: As of `MLP`.
        out_features: As of `MLP`.
        activation: As of `MLP`.
        normalization: As of `MLP`.
    """

    reads_missing = True
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        columns: Sequence[Mapping[str, Any]],
        context_dim: int = 0,
        hidden: Sequence[int] = (500,),
        out_features: int = 500,
        activation: str = "ReLU",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        self.columns = columns_of(columns)
        self.register_buffer("shift", torch.zeros(len(self.columns)))
        self.register_buffer("scale", torch.ones(len(self.columns)))
        width = sum(len(column.categories) or 1 for column in self.columns)
        self.network = MLP([1, 1, width], context_dim, hidden, out_features, activation, normalization)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """`(B, 1, 1, D), (B, context_dim) -> (B, F)`."""
        check_inputs("encoder", x, (1, 1, len(self.columns)), c, self.network.context_dim)
        rows = (on_line(x, self.columns) - self.shift) / self.scale
        known = ~rows.isnan()
        rows = torch.where(known, rows, 0)
        each = []
        for d, column in enumerate(self.columns):
            if column.categories:
                hot = torch.arange(len(column.categories), device=x.device) == rows[:, d : d + 1].round()
                each.append((hot & known[:, d : d + 1]).to(rows.dtype))
            else:
                each.append(rows[:, d : d + 1])
        return self.network(torch.cat(each, dim=1)[:, None, None], c)

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Takes mean and scale of each column of numbers from the training rows."""
        mean, deviation = moments(on_line(x, self.columns) for x, _ in batches)
        has_scale = torch.tensor([column.kind in ("real", "positive", "count") for column in self.columns])
        self.shift.copy_(torch.where(has_scale, mean.cpu(), 0))
        self.scale.copy_(torch.where(has_scale, deviation.cpu(), 1))
