"""Pictures with known factors, made on the fly: the factors of dSprites (Matthey et al., 2017), not its files."""

import math
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from vae_exp.data.grid import Grid
from vae_exp.data.split import Split
from vae_exp.precision import on_cpu

SIDE = 64
MARGIN = 16.0  # pixels from the border to the outermost centre: no outline is farther from its centre


@final
class Sprites(Grid):
    """Bits (1, 64, 64): one white shape on black, never cut off, with its centre of mass at its position.

    There are five factors, drawn at random so that no two images of all splits agree in all of them. Each combination
    is a different picture, unlike in dSprites: a shape is never turned into itself, and there are 12 rotations, because
    one step of 40 may move no bit of a small shape:

    - shape, 3: square, ellipse, heart; the label
    - scale, 6: 0.5, 0.6, ..., 1 of the largest, a square of side 21.8, an ellipse 31 by 18 pixels
    - rotation, 12: parts of the turn after which the shape looks the same, 90, 180, 360 degrees
    - x, 32: centre at 16 + 32 k / 31 pixels from the left
    - y, 32: the same from the top
    """

    factor_names = ("shape", "scale", "rotation", "x", "y")
    sizes = (3, 6, 12, 32, 32)
    unordered = ("shape",)
    units: ClassVar = {"scale": (0.5, 1), "rotation": (0, 11 / 12), "x": (16, 48), "y": (16, 48)}

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train", "val" and "test"; y is the shape, or the factors of `label` by the table above."""
        return {name: self.labelled(self.render(self.factors(name)), name) for name in ("train", "val", "test")}

    def render(self, factors: Tensor) -> Tensor:
        """`(N, 5)` whole numbers `-> (N, 1, 64, 64)` uint8, 0 or 255: a pixel is white if its centre lies in the shape.

        Raises:
            ValueError: If a factor is out of its range.
        """
        if factors.shape[1:] != (5,) or (factors < 0).any() or (factors >= torch.tensor(self.sizes)).any():
            raise ValueError(f"factors (N, 5) from 0 to less than {self.sizes} are needed")
        images = torch.zeros(len(factors), 1, SIDE, SIDE, dtype=torch.uint8)
        for kind, (period, is_inside) in enumerate(zip((0.25, 0.5, 1.0), (_square, _ellipse, _heart), strict=True)):
            # Few images at a time: the numbers for their pixels take much more memory than the bits.
            for rows in (factors[:, 0] == kind).nonzero()[:, 0].split(500):
                _, scale, rotation, x, y = on_cpu(factors[rows]).T[..., None, None]
                angle = 2 * math.pi * period * rotation / self.sizes[2]
                pixels = on_cpu(torch.arange(SIDE)) + 0.5
                right = pixels - MARGIN - (SIDE - 2 * MARGIN) * x / (self.sizes[3] - 1)
                down = pixels[:, None] - MARGIN - (SIDE - 2 * MARGIN) * y / (self.sizes[4] - 1)
                # To turn the shape, the pixels are turned backwards.
                u = (right * angle.cos() + down * angle.sin()) / (0.5 + 0.1 * scale)
                v = (down * angle.cos() - right * angle.sin()) / (0.5 + 0.1 * scale)
                images[rows, 0] = is_inside(u, v).byte() * 255
        return images


# Whether a point, u pixels to the right of the centre of mass and v below it, lies in a shape of scale 1.


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) <= 10.9  # not 11: then the outline would pass through centres of pixels


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    return (u / 15.5) ** 2 + (v / 9) ** 2 <= 1


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square standing on a corner, with half discs on its two upper sides."""
    side = 16.5
    # Distances along the sides from this corner; the centre of mass of a half disc is 4 r / (3 pi) from its diameter.
    centre = side * (7 / 12 + 3 * math.pi / 16) / (1 + math.pi / 4)
    a, b = centre + (u - v) / math.sqrt(2), centre - (u + v) / math.sqrt(2)
    square = (a >= 0) & (b >= 0) & (a <= side) & (b <= side)
    disc_a = (a - side / 2) ** 2 + (b - side) ** 2 <= (side / 2) ** 2
    disc_b = (a - side) ** 2 + (b - side / 2) ** 2 <= (side / 2) ** 2
    return square | disc_a | disc_b
