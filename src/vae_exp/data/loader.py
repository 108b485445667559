"""Batches gathered whole from memory, or from files ahead of time, in an order that a resumed run continues."""

from collections.abc import Callable, Iterator
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

    Iterating gives `(x, y)`: x `(B, C, H, W)`, the rows of `split.x` as `view` shows them, and y `(B,)`. A process
    gets its part of each global batch. In training the images are shuffled anew each epoch and an incomplete last
    batch is dropped (all steps alike, all processes with the same number); in evaluation every image is given
    once. Each pass is an epoch; the first begins at `epoch` and `position`, which a resumed run sets.

    Before each batch torch's generators are seeded anew, for `view` and for the step on the batch. Seeding each step
    by itself, rather than once a run, lets a resumed run draw what the uninterrupted one would have, and gives
    evaluation the same noise at every epoch and in every command.

    Arguments:
        split: Images and labels, on the device that batches are wanted on or, where it has no room, on the CPU.
        batch_size: Images in a batch of all processes together.
        train: Whether to shuffle and to drop an incomplete last batch.
        seed: Fixes the order and `noise_seed`.
        rank: This process.
        world_size: Number of processes.
        device: Where batches are wanted; None for where the split is.
        view: What the model sees of the pixels of a batch, uint8 or float; all of them if None.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        train: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = device or split.x.device
        self.view = view
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
        pixels = self.split.x
        order = self._order().to(pixels.device)
        ahead = iter(()) if isinstance(pixels, Tensor) else pixels.batches(self._shares(order), self.device)
        while self.position < len(self):
            rows = self._share(order, self.position)
            self.position += 1
            if len(rows):  # the last images may not reach every process
                if isinstance(pixels, Tensor):
                    # On a CPU several times as fast as `x[rows]`.
                    x = pixels.index_select(0, rows).to(self.device)
                else:
                    x = next(ahead).to(self.device, non_blocking=True)
                y = self.split.y.index_select(0, rows).to(self.device)
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
        if not self.train:
            return torch.arange(len(self.split.x))
        generator = torch.Generator().manual_seed(_mix("order", self.seed, self.epoch))
        return torch.randperm(len(self.split.x), generator=generator)


def _seed(seed: int, device: torch.device) -> None:
    # Not `torch.manual_seed`, which is slow to tell devices that are not there.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
