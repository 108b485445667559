"""Batches gathered whole from memory, or from files ahead of time, in an order that a resumed run continues."""

from collections.abc import Callable, Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from vae_exp.data.split import AnySplit

__all__ = ["Batches"]


def _mix(*parts: int | str) -> int:
    """One seed from several, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Batches:
    """Batches of a split, shared out among the processes.

    Iterating gives `(x, y)`: x `(B, C, H, W)`, pixels of the split as `view` shows them, and y `(B,)`. A process
    gets its part of each global batch. In training the images are shuffled anew each epoch and an incomplete last
    batch is dropped (all steps alike, all processes with the same number); in evaluation every image is given
    once, in the split's order. Each pass is an epoch; the first begins at `epoch` and `position`, which a resumed
    run sets.

    Before each batch torch's generators are seeded anew, for `view` and for the step on the batch. Seeding each step
    by itself, rather than once a run, lets a resumed run draw what the uninterrupted one would have, and gives
    evaluation the same noise at every epoch and in every command.

    Arguments:
        split: Images and labels, on the device that batches are wanted on or, where it has no room, on the CPU.
        batch_size: Images in a batch of all processes together.
        shuffle: Whether each epoch has an order, and noise, of its own.
        seed: Fixes the order and `noise_seed`.
        rank: This process.
        world_size: Number of processes.
        device: Where batches are wanted; None for where the split is.
        view: What the model sees of the pixels of a batch, uint8 or float; all of them if None.
        drop_last: Whether to leave an incomplete last batch out.

    Attributes:
        labelled_per_batch: The first images of each batch that have a label; the others have none (y = -1). Needs
            `shuffle` and `drop_last`. The labelled ones, and the others, are gone through in turn, in another order
            at each turn, over the epochs. None: the images come as they are.
        is_order_kept: Whether every epoch has the order of the first one; its noise is its own all the same.
    """

    def __init__(
        self,
        split: AnySplit,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = device or split.device
        self.view = view
        self.drop_last = drop_last
        self.labelled_per_batch: int | None = None
        self.is_order_kept = False
        self.epoch = 0
        self.position = 0  # batches given in this epoch
        self._began = False

    def __len__(self) -> int:
        num_images = len(self.split.y)
        return num_images // self.batch_size if self.drop_last else -(-num_images // self.batch_size)

    @property
    def noise_seed(self) -> int:
        """A seed for all that is random in the step on the last batch given: each step and rank has its own."""
        # Evaluation draws the same noise at every epoch, so that its curve moves with the model alone.
        epoch = self.epoch if self.shuffle else 0
        return _mix("noise", self.shuffle, self.seed, epoch, self.position, self.rank)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._began:
            self.epoch, self.position = self.epoch + 1, 0
        self._began = True
        order = self._order().to(self.split.device)
        batches = self.split.batches(self._shares(order), self.device)
        while self.position < len(self):
            has_images = len(self._share(order, self.position)) > 0  # the last ones may not reach every process
            self.position += 1
            if has_images:
                x, y = next(batches)
                _seed(self.noise_seed, self.device)
                yield x if self.view is None else self.view(x), y

    def _share(self, order: Tensor, position: int) -> Tensor:
        """This process's rows of a batch."""
        start = position * self.batch_size
        return order[start + self.rank : start + self.batch_size : self.world_size]

    def _shares(self, order: Tensor) -> Iterator[Tensor]:
        """Those of the batches from here on that have any."""
        shares = (self._share(order, position) for position in range(self.position, len(self)))
        return (rows for rows in shares if len(rows))

    def _order(self) -> Tensor:
        num_images = len(self.split.y)
        epoch = 0 if self.is_order_kept else self.epoch
        if not self.shuffle:
            return torch.arange(num_images)
        if self.labelled_per_batch is None:
            return _shuffled(num_images, "order", self.seed, epoch)
        has_label = self.split.y.cpu() >= 0
        numbers = {True: self.labelled_per_batch, False: self.batch_size - self.labelled_per_batch}
        parts = [
            self._next(has_label.eq(kind).nonzero()[:, 0], epoch, len(self) * number, f"labelled={kind}").view(
                -1, number
            )
            for kind, number in numbers.items()
        ]
        return torch.cat(parts, dim=1).flatten()

    def _next(self, rows: Tensor, epoch: int, number: int, name: str) -> Tensor:
        """`number` of the rows, from where the epoch before stopped; they are shuffled at each turn."""
        start = epoch * number
        first, last = start // len(rows), (start + number - 1) // len(rows)
        turns = [rows[_shuffled(len(rows), name, self.seed, turn)] for turn in range(first, last + 1)]
        return torch.cat(turns)[start - first * len(rows) :][:number]


def _shuffled(number: int, *purpose: int | str) -> Tensor:
    return torch.randperm(number, generator=torch.Generator().manual_seed(_mix(*purpose)))


def _seed(seed: int, device: torch.device) -> None:
    # Not `torch.manual_seed`, which is slow to tell devices that are not there.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
