"""What a source of images is, and what it gives."""

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vae_exp.data.pictures import Pictures


class Split(NamedTuple):
    """Images and labels in the distributor's order."""

    x: Tensor | Pictures  # uint8 (N, C, H, W), 0..255, float32 where pixels are real numbers; or in files, unread
    y: Tensor  # int64 (N,), -1 where there is no label

    def check(self, image_shape: tuple[int, ...], num_classes: int | None) -> None:
        """Raises ValueError if the images have another shape, or a label is none of 0 to `num_classes - 1`."""
        if self.x.shape[1:] != image_shape:
            raise ValueError(f"data.image_shape={list(image_shape)}, but the images are {list(self.x.shape[1:])}")
        lowest, highest = int(self.y.min()), int(self.y.max())
        if num_classes is not None and not 0 <= lowest <= highest < num_classes:
            raise ValueError(f"data.num_classes={num_classes}, but the labels are {lowest} to {highest}")

    def only(self, chosen: Tensor) -> "Split":
        """The images of a mask `(N,)`."""
        x = self.x.only(chosen) if isinstance(self.x, Pictures) else self.x[chosen]
        return Split(x, self.y[chosen])

    def on(self, device: torch.device) -> "Split":
        """The split on the device, where it takes less than half of what is free there."""
        if isinstance(self.x, Pictures) or device.type != "cuda":
            return self
        size = self.x.nbytes + self.y.nbytes
        has_room = size < torch.cuda.mem_get_info(device)[0] / 2
        return Split(self.x.to(device), self.y.to(device)) if has_room else self


class Source(Protocol):
    """One data set. Its constructor touches no file."""

    def fetch(self, root: Path) -> None:
        """Make sure the files are there, downloading what is missing; call it on one process.

        Raises FileNotFoundError where they are missing and cannot be downloaded.
        """

    def load(self, root: Path) -> dict[str, Split]:
        """Read the split "train" and, only where the distributor defines them, "val" and "test".

        Raises ValueError where a file is corrupt.
        """
