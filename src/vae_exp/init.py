"""Initial weights of the networks; all biases are 0. Glorot: Glorot & Bengio (2010). He: arXiv:1502.01852.

What is no linear or convolutional layer, such as a learned scale or a pseudo-input, starts as it does without; so does
a layer that starts from zeros, which leaves something out at first (the lower half of `full_normal`, the last layer of
a flow).
"""

from math import prod, sqrt

import torch
from torch import Tensor, nn

__all__ = ["Glorot", "He", "Init", "Normal"]

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Init:
    """Initial weights of a model: `fill` says how one layer gets them."""

    def fill(self, weight: Tensor, fan_in: float, fan_out: float) -> None:
        """Draws the weights of a layer, in place.

        Arguments:
            weight: Of any shape.
            fan_in: Numbers that an output adds up.
            fan_out: Outputs that an input goes into. Where a convolution has a stride these are means.
        """
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Draws the weights of every linear and convolutional layer, and sets their biases to 0."""
        for layer in model.modules():
            if isinstance(layer, LAYERS) and layer.weight.any():
                self.fill(layer.weight, *fans(layer))
                if layer.bias is not None:
                    layer.bias.zero_()


def fans(layer: nn.Module) -> tuple[float, float]:
    """Numbers that an output of a layer adds up, and outputs that an input of it goes into; of convolutions, inside."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    kernel, stride = weight[0, 0].numel(), prod(getattr(layer, "stride", ()))
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.shape[0] * kernel / stride, float(weight.shape[1] * kernel)
    return float(weight.shape[1] * kernel), weight.shape[0] * kernel / stride


class Normal(Init):
    """`N(0, std^2)` (Kingma & Welling, 2014).

    Arguments:
        std: The standard deviation.
    """

    def __init__(self, std: float) -> None:
        if std <= 0:
            raise ValueError(f"init.std={std}: a number above 0 is needed")
        self.std = std

    def fill(self, weight: Tensor, fan_in: float, fan_out: float) -> None:
        """See `Init`."""
        weight.normal_(0, self.std)


class Glorot(Init):
    """Uniform, variance `2 / (fan_in + fan_out)`: between what keeps outputs, and gradients, as large as they come."""

    def fill(self, weight: Tensor, fan_in: float, fan_out: float) -> None:
        """See `Init`."""
        bound = sqrt(6 / (fan_in + fan_out))
        weight.uniform_(-bound, bound)


class He(Init):
    """`N(0, 2 / fan_in)`: the squares of what goes in and comes out are as large, with a ReLU before each layer."""

    def fill(self, weight: Tensor, fan_in: float, fan_out: float) -> None:
        """See `Init`."""
        weight.normal_(0, sqrt(2 / fan_in))
