"""Corruptions `x -> x` of what the encoder sees in training. The clean x is scored, so an ELBO stays a bound.

In evaluation they do nothing.
"""

import torch
from torch import Tensor, nn

__all__ = ["Gaussian", "Mask"]


class Gaussian(nn.Module):
    """Adds normal noise to each pixel.

    Arguments:
        scale: Standard deviation of the noise, in units of the pixel range [0, 1].
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"corruption.scale={scale}: a positive scale is needed; corruption=none adds no noise")
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B, C, H, W)`."""
        return x + self.scale * torch.randn_like(x) if self.training else x


class Mask(nn.Module):
    """Sets random pixels to 0, all channels of a pixel together (Vincent et al., 2008).

    Arguments:
        share: Probability of each pixel to be set to 0, independent of the others.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"corruption.share={share}: a share between 0 and 1 is needed; corruption=none masks none")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W) -> (B, C, H, W)`."""
        return x * (torch.rand_like(x[:, :1]) >= self.share) if self.training else x
