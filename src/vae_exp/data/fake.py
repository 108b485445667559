"""Pictures of any shape, made on the fly, for tests and first runs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch

from vae_exp.data.split import Source, Split


@final
class Fake(Source):
    """A soft spot in every image: the class sets its place, chance moves it a little and sets its width.

    Args:
        image_shape: (C, H, W).
        num_classes: Number of classes, or None for images of ten kinds without labels.
        size: Images per split.
        seed: Fixes everything that is random here.
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int | None, size: int, seed: int) -> None:
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.size = size
        self.seed = seed

    def fetch(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train" and "test"."""
        generator = torch.Generator().manual_seed(self.seed)
        return {"train": self._make(generator), "test": self._make(generator)}

    def _make(self, generator: torch.Generator) -> Split:
        channels, height, width = self.image_shape
        classes = 10 if self.num_classes is None else self.num_classes
        y = torch.randint(classes, (self.size,), generator=generator)
        shift = 0.04 * torch.randn(2, self.size, 1, generator=generator)  # in units of the side of the image
        sigma = 0.1 + 0.1 * torch.rand(self.size, 1, 1, 1, generator=generator)
        # The places of the classes lie on a circle; each channel has its spot a little further than the channel before.
        angle = 2 * math.pi * (y[:, None] / classes + torch.arange(channels) / (8 * channels))
        top, left = 0.5 + 0.25 * torch.stack((angle.sin(), angle.cos())) + shift  # (N, C) each
        rows, columns = ((torch.arange(pixels) + 0.5) / pixels for pixels in (height, width))
        square = (rows[:, None] - top[..., None, None]) ** 2 + (columns - left[..., None, None]) ** 2
        x = (255 * torch.exp(-square / (2 * sigma**2))).round().byte()
        return Split(x, torch.full_like(y, -1) if self.num_classes is None else y)
