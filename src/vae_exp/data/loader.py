"""Batches of images, from memory or read ahead from files, in an order that a resumed run continues."""

from collections.abc import Callable, Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from vae_exp.data.split import AnySplit

__all__ = ["Batches"]


def _mix(*parts: int | str) -> int:
    """One seed made from several values, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Batches:
    """Batches of a split, shared out among the processes.

    Iterating gives `(x, y)`: x `(B, C, H, W)`, pixels of the split as `view` shows them, and y `(B,)`. A process
    gets its part of each global batch. In training, the images are shuffled again in each epoch, and an incomplete
    last batch is dropped, so that all steps are alike and all processes make the same number of steps. In evaluation,
    every image is given once, in the order of the split. Each pass is an epoch; the first begins at `epoch` and
    `position`, which a resumed run sets.

    Before each batch, torch's generators are seeded again, for `view` and for the step on the batch. Because each step
    has its own seed, a resumed run draws the same numbers as an uninterrupted one, and evaluation has the same noise at
    every epoch and in every command.

    Arguments:
        split: Images and labels, on the device of the batches, or on the CPU if the device has not enough memory.
        batch_size: Images in a batch of all processes together.
        shuffle: Whether each epoch has its own order and its own noise.
        seed: Fixes the order and `noise_seed`.
        rank: The number of this process.
        world_size: Number of processes.
        device: The device of the batches; None for the device of the split.
        view: Turns the pixels of a batch, uint8 or float, into what the model is given; None leaves them unchanged.
        drop_last: Whether to leave an incomplete last batch out.

    Attributes:
        labelled_per_batch: So many images at the start of each batch have a label, and the others have none (y = -1).
            Needs `shuffle` and `drop_last`. The labelled and the other images are two lists; each is used up to its end
            and then shuffled again, independent of epochs. None: the images come as they are.
        gives_rows: Whether the numbers of the images in the split, `(B,)`, come as a third.
        repeats: How many times in a row each batch is given, with the same pixels and other noise of the step.
        augment: Changes the pixels of a batch before `view`; None leaves them.
        is_order_kept: Whether every epoch has the order of the first one; its noise still differs.
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
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.device = device or split.device
        self.view = view
        self.drop_last = drop_last
        self.labelled_per_batch: int | None = None
        self.gives_rows = False
        self.repeats = 1
        self.augment: Callable[[Tensor], Tensor] | None = None
        self.is_order_kept = False
        self.epoch = 0
        self.position = 0  # batches given in this epoch
        self._began = False

    def __len__(self) -> int:
        num_images = len(self.split.y)
        return self.repeats * (num_images // self.batch_size if self.drop_last else -(-num_images // self.batch_size))

    @property
    def noise_seed(self) -> int:
        """A seed for everything random in the step on the last batch given; it differs between steps and ranks."""
        return self._seed_of(self.position)

    def _seed_of(self, position: int) -> int:
        # Evaluation draws the same noise at every epoch, so that its curve shows only changes of the model.
        epoch = self.epoch if self.shuffle else 0
        return _mix("noise", self.shuffle, self.seed, epoch, position, self.rank)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self._began:
            self.epoch, self.position = self.epoch + 1, 0
        self._began = True
        order = self._order().to(self.split.device)
        batches = self.split.batches(self._shares(order), self.device)
        while self.position < len(self):
            rows = self._share(order, self.position)
            self.position += 1
            if len(rows) > 0:  # too few may be left for every process
                x, y = next(batches)
                _seed(self._seed_of(self.position - (self.position - 1) % self.repeats), self.device)
                x = x if self.augment is None else self.augment(x)
                x = x if self.view is None else self.view(x)
                if self.repeats > 1:
                    _seed(self.noise_seed, self.device)
                yield (x, y, rows.to(self.device)) if self.gives_rows else (x, y)

    def _share(self, order: Tensor, position: int) -> Tensor:
        """The rows of a batch that belong to this process."""
        start = position // self.repeats * self.batch_size
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
            self._next(
                has_label.eq(kind).nonzero()[:, 0], epoch, len(self) // self.repeats * number, f"labelled={kind}"
            ).view(-1, number)
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
