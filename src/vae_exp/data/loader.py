"""Batches gathered whole from tensors in memory, in an order that a resumed run continues."""

from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from vae_exp.data.split import Split

__all__ = ["Batches"]


def _mix(*parts: int | str) -> int:
    """One seed from several, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Batches:
    """Batches of a split, shared out among the processes.

    Iterating gives `(x, y)`: the rows of `split.x`, `(B, C, H, W)`, and of `split.y`, `(B,)`. A process gets
    its part of each global batch. In training the images are shuffled anew each epoch and an incomplete last
    batch is dropped (all steps alike, all processes with the same number); in evaluation every image is given
    once. Each pass is an epoch; the first begins at `epoch` and `position`, which a resumed run sets.

    Arguments:
        split: Images and labels.
        batch_size: Images in a batch of all processes together.
        train: Whether to shuffle and to drop an incomplete last batch.
        seed: Fixes the order and `noise_seed`.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, split: Split, batch_size: int, train: bool, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0  # batches given in this epoch
        self._began = False

    def __len__(self) -> int:
        num_images = len(self.split.x)
        return num_images // self.batch_size if self.train else -(-num_images // self.batch_size)

    @property
    def noise_seed(self) -> int:
        """A seed for all that is random in the step on the last batch given: each step and rank has its own."""
        # Evaluation draws the same noise at every epoch, so that its curve moves with the model alone.
        epoch = self.epoch if self.train else 0
        return _mix("noise", self.train, self.seed, epoch, self.position, self.rank)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._began:
            self.epoch, self.position = self.epoch + 1, 0
        self._began = True
        order = self._order()
        while self.position < len(self):
            start = self.position * self.batch_size
            rows = order[start + self.rank : start + self.batch_size : self.world_size]
            self.position += 1
            if len(rows):  # the last images may not reach every process
                yield self.split.x[rows], self.split.y[rows]

    def _order(self) -> Tensor:
        if not self.train:
            return torch.arange(len(self.split.x))
        generator = torch.Generator().manual_seed(_mix("order", self.seed, self.epoch))
        return torch.randperm(len(self.split.x), generator=generator)
