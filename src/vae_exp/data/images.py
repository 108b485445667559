"""The data module: any source of images, split, binarised and batched."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae_exp.data.loader import Batches
from vae_exp.data.pictures import Pictures
from vae_exp.data.split import Source, Split

__all__ = ["Images"]

Stage = Literal["train", "val", "test"]


class Images(pl.LightningDataModule):
    """Images in memory as uint8, on the device where it has room, or in their files; batches are floats in [0, 1].

    Batches are `(x, y)`: x `(B, C, H, W)` float, y `(B,)` long, -1 where there is no label.

    Arguments:
        source: Where the images come from.
        root: The folder of the files.
        image_shape: `(C, H, W)`, checked against the files.
        num_classes: Number of labels, None for no labels; checked against the files.
        levels: Number of values a pixel has in the files, from 2 to 256.
        val_size: Images cut from train to validate on, where the source has no such split of its own.
        test_size: Images cut from train to test on, where the source has no such split of its own.
        binarize: `none`; `threshold` at one half; `static`: one draw of bits with the grey levels as
            probabilities; `dynamic`: new bits at each visit in training, fixed ones to validate and test.
        dequantize: Adds uniform noise, `(level + u) / 256`, fixed to validate and test.
        batch_size: Images in a training batch of all processes together.
        eval_batch_size: Likewise to validate and test.
        seed: Fixes the split, the evaluation bits and the dequantisation noise.
        train_seed: Fixes the order of the images, the training bits and the noise of each step.

    Raises:
        ValueError: If an argument is out of its range, or the files are not what the arguments say.
    """

    def __init__(
        self,
        source: Source,
        root: str,
        image_shape: Sequence[int],
        num_classes: int | None,
        levels: int = 256,
        val_size: int | None = None,
        test_size: int | None = None,
        binarize: Literal["none", "threshold", "dynamic", "static"] = "none",
        dequantize: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        seed: int = 0,
        train_seed: int = 0,
    ) -> None:
        super().__init__()
        if binarize not in ("none", "threshold", "dynamic", "static"):
            raise ValueError(f"data.binarize={binarize}: choose none, threshold, dynamic or static")
        if dequantize and (binarize != "none" or levels != 256):
            given = "bits" if binarize != "none" or levels == 2 else f"{levels} levels"
            raise ValueError(f"data.dequantize=true is for 256 grey levels, these pixels are {given}: set it to false")
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"data.{name}={size}: at least 1 is needed")
        self.source = source
        self.root = Path(root)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.levels = levels
        self.val_size = val_size
        self.test_size = test_size
        self.binarize = binarize
        self.dequantize = dequantize
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_seed = train_seed
        self.splits: dict[str, Split] = {}
        self._batches: dict[str, Batches] = {}
        self._start = {"epoch": 0, "position": 0}

    @property
    def values(self) -> str:
        """The set that pixels lie in, of the chain `vae_exp.likelihoods` explains: binary, levels or unit."""
        if self.binarize != "none" or self.levels == 2:
            return "binary"
        return "unit" if self.dequantize else "levels"

    @property
    def representation(self) -> str:
        """What the likelihood scores, for people: runs compare where it is the same."""
        if self.binarize != "none":
            return f"bits, {self.binarize}"
        if self.levels == 2:
            return "bits, as distributed"
        return f"{self.levels} levels, dequantised" if self.dequantize else f"{self.levels} levels"

    @property
    def checksums(self) -> dict[str, str]:
        """The first 16 digits of the sha256 of each split read so far, evaluation bits and noise included.

        Pictures that are not in memory stand there by the names and sizes of their files.
        """
        digest = {}
        for name, split in self.splits.items():
            pixels = sha256(split.x.fingerprint if isinstance(split.x, Pictures) else split.x.contiguous().numpy().data)
            pixels.update(split.y.numpy().tobytes())
            digest[name] = pixels.hexdigest()[:16]
        return digest

    def prepare_data(self) -> None:
        """Fetches the files, on one process."""
        self.source.fetch(self.root)

    def setup(self, stage: str) -> None:
        """Reads and splits the images; test images are kept for stage `test` alone."""
        needed: tuple[Stage, ...] = ("test",) if stage == "test" else ("train", "val")
        if all(name in self.splits for name in needed):
            return
        splits = self.source.load(self.root)
        self._check(splits["train"])
        for name, size in (("test", self.test_size), ("val", self.val_size)):
            if name not in splits:
                splits["train"], splits[name] = self._cut(splits["train"], name, size)
        for name in needed:
            self.splits[name] = self._represent(splits[name], name)
        if "train" in needed and len(self.splits["train"].x) < self.batch_size:
            raise ValueError(
                f"data.batch_size={self.batch_size} is more than the {len(self.splits['train'].x)} training images"
            )

    def check_shares(self, world_size: int) -> None:
        """Raises ValueError if a training batch cannot be shared out among the processes."""
        if self.batch_size % world_size:
            raise ValueError(f"data.batch_size={self.batch_size} cannot be shared out among {world_size} processes")

    def train_dataloader(self) -> Batches:
        """Shuffled batches."""
        return self._loader("train", self.batch_size, self.train_seed)

    def val_dataloader(self) -> Batches:
        """Every validation image once."""
        return self._loader("val", self.eval_batch_size, self.seed)

    def test_dataloader(self) -> Batches:
        """Every test image once."""
        return self._loader("test", self.eval_batch_size, self.seed)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that were trained on."""
        if self.trainer is None or "train" not in self._batches:
            return self._start
        # Not what the loader has given: an interrupted step is done again.
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        epoch = self._batches["train"].epoch
        # `processed`, for at the end of a batch, where a checkpoint may be written, it is not `completed` yet.
        done: int = progress.current.processed  # type: ignore[attr-defined]
        if progress.is_last_batch and done == progress.current.ready:
            return {"epoch": epoch + 1, "position": 0}
        return {"epoch": epoch, "position": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Makes training continue where the state was taken."""
        self._start = state_dict

    def _loader(self, stage: Stage, batch_size: int, seed: int) -> Batches:
        split, train = self.splits[stage], stage == "train"
        rank, world_size, device = 0, 1, split.x.device
        if self.trainer is not None:
            rank, world_size, device = (
                self.trainer.global_rank,
                self.trainer.world_size,
                self.trainer.strategy.root_device,
            )
            split = _on(device, split)
        view = self._view_to_train if train or isinstance(split.x, Pictures) else _levels
        batches = Batches(split, batch_size, train, seed, rank, world_size, device, view)
        if train:
            batches.epoch, batches.position = self._start["epoch"], self._start["position"]
        self._batches[stage] = batches
        return batches

    def _view_to_train(self, x: Tensor) -> Tensor:
        """Draws bits or noise."""
        if self.binarize == "dynamic":
            return _bits(x).float()
        return (x + torch.rand(x.shape, device=x.device)) / 256 if self.dequantize else _levels(x)

    def _check(self, split: Split) -> None:
        if split.x.shape[1:] != self.image_shape:
            raise ValueError(f"data.image_shape={list(self.image_shape)}, but the images are {list(split.x.shape[1:])}")
        lowest, highest = int(split.y.min()), int(split.y.max())
        if self.num_classes is not None and not 0 <= lowest <= highest < self.num_classes:
            raise ValueError(f"data.num_classes={self.num_classes}, but the labels are {lowest} to {highest}")

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + purpose)

    def _cut(self, split: Split, name: str, size: int | None) -> tuple[Split, Split]:
        """Cuts `size` images off, every class by its share."""
        total = len(split.x)
        if size is None or not 0 < size < total:
            raise ValueError(
                f"data.{name}_size={size}: the set has no {name} split, a part of its {total} images is needed"
            )
        order = torch.randperm(total, generator=self._generator(0 if name == "test" else 1))
        order = order[torch.argsort(split.y[order], stable=True)]
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[order[torch.arange(size) * total // size]] = True
        return _only(split, ~chosen), _only(split, chosen)

    def _represent(self, split: Split, name: Stage) -> Split:
        """Fixes what does not change between visits."""
        x, generator = split.x, self._generator(("train", "val", "test").index(name) + 2)
        if isinstance(x, Pictures):
            if not x.in_memory:
                if self.binarize in ("static", "threshold"):
                    raise ValueError(
                        f"data.binarize={self.binarize} fixes the bits of pictures in memory, and these are read while "
                        "training: data.source.in_memory=true, or data.binarize=dynamic"
                    )
                return split
            x = x.read()
        if self.binarize == "threshold":
            x = (x > 127).byte() * 255
        elif self.binarize == "static" or (self.binarize == "dynamic" and name != "train"):
            x = _bits(x, generator) * 255
        elif self.dequantize and name != "train":
            x = (x + torch.rand(x.shape, generator=generator)) / 256
        return Split(x, split.y)


def _only(split: Split, chosen: Tensor) -> Split:
    x = split.x.only(chosen) if isinstance(split.x, Pictures) else split.x[chosen]
    return Split(x, split.y[chosen])


def _on(device: torch.device, split: Split) -> Split:
    """The split on the device, where it takes less than half of what is free there."""
    if isinstance(split.x, Pictures):
        return split
    size = split.x.nbytes + split.y.nbytes
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 2:
        return Split(split.x.to(device), split.y.to(device))
    return split


def _levels(x: Tensor) -> Tensor:
    return x / 255 if x.dtype == torch.uint8 else x


def _bits(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Of 255 equally likely numbers, k are below the level k: bits of probability k / 255, exactly.

    On a CPU this is faster than `bernoulli`, and bytes become floats faster than bools.
    """
    numbers = torch.randint(255, x.shape, dtype=torch.uint8, device=x.device, generator=generator)
    return (numbers < x).view(torch.uint8)
