"""Decoders `(z, c) -> params`: latents `(N, D)`, context `(N, context_dim)` or None, params `(N, P*C, H, W)`.

Normalisations are those of `vae_exp.encoders`. `batch` couples the latents of a training batch, so the training bound
is one of the probability of the whole batch, under another model than the one that is validated.

The output bias can start at the training images: with `output_bias=mean` at their mean, for likelihoods that read one
number per pixel, a mean (sse, laplace); with `mean_logit` at its logit, for those that read its logit (bce, a sigmoid
mean). If the last layer has a bias for each pixel, this is the mean image, otherwise the mean of each channel.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from vae_exp.layers import activation_class, check_inputs, normalization_of, residual
from vae_exp.parts import Decoder
from vae_exp.precision import on_cpu

__all__ = ["MLP", "Conv", "ResNet"]


class _Decoder(Decoder):
    """What all decoders share: `layers`; the last one gives the params and has a bias."""

    layers: nn.Sequential

    def __init__(
        self, latent_dim: int, image_shape: Sequence[int], context_dim: int, params_per_pixel: int, output_bias: str
    ) -> None:
        super().__init__()
        if output_bias not in ("default", "mean", "mean_logit"):
            raise ValueError(f"decoder.output_bias={output_bias}: choose default, mean or mean_logit")
        if output_bias != "default" and params_per_pixel != 1:
            raise ValueError(
                f"decoder.output_bias={output_bias} is for likelihoods that read one number per pixel, "
                f"this one reads {params_per_pixel}: choose default"
            )
        channels, height, width = image_shape
        self.latent_dim, self.context_dim = latent_dim, context_dim
        self.params_shape = (params_per_pixel * channels, height, width)
        self.output_bias = output_bias

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """`(N, D), (N, context_dim) or None -> (N, P*C, H, W)`; the context is appended to the latents."""
        check_inputs("decoder", z, (self.latent_dim,), c, self.context_dim)
        # Not len(z), which an export would treat as a constant.
        return self.layers(z if c is None else torch.cat([z, c], dim=1)).view(z.shape[0], *self.params_shape)

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets the output bias according to `output_bias`, before the first step of a new run.

        Arguments:
            batches: The training images, each once: x `(B, C, H, W)` as the likelihood scores them, and y, which is not
                read.

        Raises:
            ValueError: If a mean outside [0, 1] has no logit.
        """
        if self.output_bias == "default":
            return
        *_, bias = self.layers.parameters()  # that of the output layer
        dims = (0,) if bias.numel() == prod(self.params_shape) else (0, 2, 3)
        total, num = on_cpu(torch.zeros(())), 0
        for x, _ in batches:
            total = total + on_cpu(x.sum(dims))
            num += x.numel() // bias.numel()
        # Adds half a bit of each kind, so that the logit of a pixel that is never on is finite.
        start = total / num if self.output_bias == "mean" else torch.logit((total + 0.5) / (num + 1))
        if not start.isfinite().all():
            raise ValueError("decoder.output_bias=mean_logit: some pixels have a mean outside [0, 1], choose mean")
        bias.copy_(start.flatten())


class MLP(_Decoder):
    """A fully connected decoder; without hidden layers it is one linear map (`decoder=linear`).

    Arguments:
        latent_dim: D.
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        params_per_pixel: P, the numbers the likelihood needs for each pixel and channel.
        hidden: Widths of the hidden layers.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the hidden layers.
        output_bias: `default`, `mean` or `mean_logit`.

    Raises:
        ValueError: If there is no such activation, normalisation or bias.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        context_dim: int = 0,
        params_per_pixel: int = 1,
        hidden: Sequence[int] = (500, 500),
        activation: str = "ReLU",
        normalization: str = "none",
        output_bias: str = "default",
    ) -> None:
        super().__init__(latent_dim, image_shape, context_dim, params_per_pixel, output_bias)
        act, norm = activation_class("decoder", activation), normalization_of("decoder", normalization, of_maps=False)
        widths = [latent_dim + context_dim, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), *norm(fan_out), act()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], prod(self.params_shape)))


class Conv(_Decoder):
    """The mirror of `encoders.Conv`: linear layers, then transposed convolutions that double the image.

    Arguments:
        latent_dim: D.
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        params_per_pixel: P, the numbers the likelihood needs for each pixel and channel.
        channels: Channels before each doubling.
        hidden: Width of the linear layer that reads z.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the hidden layer and the feature maps.
        output_bias: `default`, `mean` or `mean_logit`; one number for each channel.

    Raises:
        ValueError: If the image is too small to be halved `len(channels)` times, or there is no such
            activation, normalisation or bias.
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
        normalization: str = "none",
        output_bias: str = "default",
    ) -> None:
        super().__init__(latent_dim, image_shape, context_dim, params_per_pixel, output_bias)
        act, norm = activation_class("decoder", activation), normalization_of("decoder", normalization, of_maps=True)
        norm_hidden = normalization_of("decoder", normalization, of_maps=False)
        out_channels, height, width = self.params_shape
        # Sides from the smallest map to the image: 7, 14, 28. An odd side is one more than twice the side before it.
        heights = [height >> k for k in range(len(channels), -1, -1)]
        widths = [width >> k for k in range(len(channels), -1, -1)]
        if not heights[0] or not widths[0]:
            raise ValueError(
                f"decoder.channels={list(channels)} doubles the image {len(channels)} times, "
                f"too often for image_shape={list(image_shape)}: give fewer channels"
            )
        sizes = [*channels, out_channels]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + context_dim, hidden),
            *norm_hidden(hidden),
            act(),
            nn.Linear(hidden, sizes[0] * heights[0] * widths[0]),
            nn.Unflatten(1, (sizes[0], heights[0], widths[0])),
        ]
        for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            odd = (heights[k + 1] % 2, widths[k + 1] % 2)
            layers += [
                *norm(fan_in),
                act(),
                nn.ConvTranspose2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1, output_padding=odd),
            ]
        self.layers = nn.Sequential(*layers)


class ResNet(_Decoder):
    """The mirror of `encoders.ResNet`: a linear layer, stages of residual blocks, a convolution to the params.

    From the second stage on, each stage first enlarges the maps (nearest neighbour) to the size that they have in the
    encoder, and then applies a convolution of kernel 3.

    Arguments:
        latent_dim: D.
        image_shape: `(C, H, W)`.
        context_dim: Width of the context c, 0 for none.
        params_per_pixel: P, the numbers the likelihood needs for each pixel and channel.
        channels: Channels of each stage.
        blocks: Residual blocks in each stage.
        activation: Name of a class in `torch.nn`.
        normalization: `none`, `batch` or `layer`, of the feature maps.
        output_bias: `default`, `mean` or `mean_logit`; one number for each channel.

    Raises:
        ValueError: If there is no stage or no block, if the first two stages would have a single pixel, or if there
            is no such activation, normalisation or bias.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        context_dim: int = 0,
        params_per_pixel: int = 1,
        channels: Sequence[int] = (128, 64, 32),
        blocks: int = 2,
        activation: str = "ReLU",
        normalization: str = "none",
        output_bias: str = "default",
    ) -> None:
        super().__init__(latent_dim, image_shape, context_dim, params_per_pixel, output_bias)
        act, norm = activation_class("decoder", activation), normalization_of("decoder", normalization, of_maps=True)
        if not channels or blocks < 1:
            raise ValueError(
                f"decoder.channels={list(channels)}, decoder.blocks={blocks}: at least one stage of one block is needed"
            )
        out_channels, height, width = self.params_shape
        # Sides are rounded up, as in the encoder: 7, 14, 28 or 4, 7, 13.
        sizes = [(-(-height >> k), -(-width >> k)) for k in range(len(channels) - 1, -1, -1)]
        if sizes[:2] == [(1, 1), (1, 1)]:
            raise ValueError(
                f"decoder.channels={list(channels)} doubles the image {len(channels) - 1} times, "
                f"too often for image_shape={list(image_shape)}: give fewer channels"
            )
        layers: list[nn.Module] = [
            nn.Linear(latent_dim + context_dim, channels[0] * prod(sizes[0])),
            nn.Unflatten(1, (channels[0], *sizes[0])),
        ]
        for k, fan_out in enumerate(channels):
            if k:
                layers.append(nn.Upsample(size=sizes[k]))
                layers.append(nn.Conv2d(channels[k - 1], fan_out, kernel_size=3, padding=1))
            layers += [residual(fan_out, act, norm, blocks * len(channels)) for _ in range(blocks)]
        layers += [*norm(channels[-1]), act(), nn.Conv2d(channels[-1], out_channels, kernel_size=3, padding=1)]
        self.layers = nn.Sequential(*layers)
