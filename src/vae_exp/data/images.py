"""The data module: any source of images, split, binarised and batched."""

from collections.abc import Sequence
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae_exp.data.cut import check_labelled, cut, keep_labels
from vae_exp.data.loader import Batches
from vae_exp.data.pictures import Pictures
from vae_exp.data.pixels import Levels, bits, check_pixels, floats, kind
from vae_exp.data.split import Source, Split

__all__ = ["Images"]

Stage = Literal["train", "val", "test"]


class Images(pl.LightningDataModule):
    """Images in memory, bytes as such, on the device where it has room, or in their files; batches are floats.

    Batches are `(x, y)`: x `(B, C, H, W)` float, y `(B,)` long, -1 where there is no label.

    Arguments:
        source: Where the images come from.
        root: The folder of the files.
        image_shape: `(C, H, W)`, checked against the files.
        num_classes: Number of labels, None for no labels; checked against the files.
        train_size: Number of images left to train on, checked against the files; None where it is not stated.
        levels: Number of values a pixel has in the files, from 2 to 256, where they are bytes; `unit` for real
            numbers in [0, 1], None for any real numbers, float32.
        val_size: Images cut from train to validate on, where the source has no such split of its own.
        test_size: Images cut from train to test on, where the source has no such split of its own.
        binarize: `none`; `threshold` at one half; `static`: one draw of bits with the grey levels as
            probabilities; `dynamic`: new bits at each visit in training, fixed ones to validate and test.
        dequantize: Adds uniform noise, `(level + u) / 256`, fixed to validate and test.
        labelled: Training images that keep their label, as many of each class; the others have y = -1. None: all.
        labelled_per_batch: Of a training batch, the first ones, drawn from those in turn; the rest have no label.
            None: the images come as they are.
        batch_size: Images in a training batch of all processes together.
        eval_batch_size: Likewise to validate and test.
        seed: Fixes the split, the labels that are kept, the evaluation bits and the dequantisation noise.
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
        train_size: int | None = None,
        levels: Levels = 256,
        val_size: int | None = None,
        test_size: int | None = None,
        binarize: Literal["none", "threshold", "dynamic", "static"] = "none",
        dequantize: bool = False,
        labelled: int | None = None,
        labelled_per_batch: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        seed: int = 0,
        train_seed: int = 0,
    ) -> None:
        super().__init__()
        if binarize not in ("none", "threshold", "dynamic", "static"):
            raise ValueError(f"data.binarize={binarize}: choose none, threshold, dynamic or static")
        if levels not in (None, "unit", *range(2, 257)):
            raise ValueError(
                f"data.levels={levels}: choose 2 to 256 for bytes, unit for real numbers in [0, 1], null for any others"
            )
        given = kind(levels)
        if binarize != "none" and not isinstance(levels, int):
            raise ValueError(f"data.binarize={binarize} is for grey levels, these pixels are {given}: set it to none")
        if dequantize and (binarize != "none" or levels != 256):
            given = "bits" if binarize != "none" else given
            raise ValueError(f"data.dequantize=true is for 256 grey levels, these pixels are {given}: set it to false")
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"data.{name}={size}: at least 1 is needed")
        check_labelled(labelled, labelled_per_batch, num_classes, batch_size)
        self.source = source
        self.root = Path(root)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.train_size = train_size
        self.levels = levels
        self.val_size = val_size
        self.test_size = test_size
        self.binarize = binarize
        self.dequantize = dequantize
        self.labelled = labelled
        self.labelled_per_batch = labelled_per_batch
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_seed = train_seed
        self.splits: dict[str, Split] = {}
        self.device = torch.device("cpu")  # of the batches, where there is no trainer to say it
        self._train_batches: Batches | None = None
        self._start = {"epoch": 0, "position": 0}

    @property
    def values(self) -> str:
        """The set that pixels lie in, of the chain `vae_exp.likelihoods` explains: binary, levels, unit or real."""
        if not isinstance(self.levels, int):
            return self.levels or "real"
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
        return f"{kind(self.levels)}, dequantised" if self.dequantize else kind(self.levels)

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
        for name, split in splits.items():
            split.check(self.image_shape, self.num_classes)
            check_pixels(name, split.x, self.levels)
        for name, size in (("test", self.test_size), ("val", self.val_size)):
            if name not in splits:
                generator = self._generator(0 if name == "test" else 1)
                splits["train"], splits[name] = cut(splits["train"], name, size, generator)
        if self.train_size not in (None, len(splits["train"].x)):
            raise ValueError(
                f"data.train_size={self.train_size}, but {len(splits['train'].x)} images are left to train on: "
                f"set data.train_size={len(splits['train'].x)}, or null"
            )
        if "train" in needed and self.labelled is not None and self.num_classes is not None:
            splits["train"] = keep_labels(splits["train"], self.labelled, self.num_classes, self._generator(5))
            if self.labelled_per_batch is not None and self.labelled == len(splits["train"].y):
                raise ValueError(
                    f"data.labelled_per_batch={self.labelled_per_batch}: every training image has a label, set null"
                )
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
        """Shuffled batches; the same ones each epoch with `trainer.overfit_batches`."""
        batches = self._loader("train", self.batch_size, shuffle=True, drop_last=True)
        batches.labelled_per_batch = self.labelled_per_batch
        batches.is_order_kept = self.trainer is not None and self.trainer.overfit_batches > 0
        batches.epoch, batches.position = self._start["epoch"], self._start["position"]
        self._train_batches = batches
        return batches

    def training_images(self, whole: bool = False) -> Batches:
        """Every training image once a pass, as training shows them: what a part is fitted to before it is trained.

        Batches of `eval_batch_size`, in an order fixed by `train_seed`, another one at each pass. Needs `setup("fit")`.

        Arguments:
            whole: All of them to each process, the same; else its share, which the last batch may not reach.
        """
        batches = self._loader("train", self.eval_batch_size, shuffle=True)
        if whole:
            batches.rank, batches.world_size = 0, 1
        return batches

    def val_dataloader(self) -> Batches:
        """Every validation image once."""
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> Batches:
        """Every test image once."""
        return self._loader("test", self.eval_batch_size)

    def batches(self, stage: Stage) -> Batches:
        """Every image of a split once, in order; of train as training shows them."""
        return self._loader(stage, self.eval_batch_size)

    def represent(self, x: Tensor) -> Tensor:
        """Bytes of other pictures, `(N, C, H, W)`, as the model is shown those of the test split: floats, or bits."""
        check_pixels("input", x, self.levels)
        return floats(self._represent(Split(x, torch.full((len(x),), -1)), "test").x)  # type: ignore[arg-type]

    def on(self, device: torch.device) -> "Images":
        """The same images, whose batches lie on `device`; no trainer says where."""
        data = copy(self)
        data.device, data.trainer = device, None
        return data

    def only(self, stage: Stage, chosen: Tensor) -> "Images":
        """The same images, of one split those of a mask `(N,)` alone. Needs the split to be read."""
        data = copy(self)
        data.splits = {**self.splits, stage: self.splits[stage].only(chosen)}
        return data

    def with_all_labels(self) -> "Images":
        """The same images, read again, where every training image keeps its label; itself where they all do."""
        if self.labelled is None:
            return self
        data = copy(self)
        data.labelled, data.labelled_per_batch, data.splits = None, None, {}
        data.setup("fit")
        return data

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that were trained on."""
        if self.trainer is None or self._train_batches is None:
            return self._start
        # Not what the loader has given: an interrupted step is done again.
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        epoch = self._train_batches.epoch
        # `processed`, for at the end of a batch, where a checkpoint may be written, it is not `completed` yet.
        done: int = progress.current.processed  # type: ignore[attr-defined]
        if progress.is_last_batch and done == progress.current.ready:
            return {"epoch": epoch + 1, "position": 0}
        return {"epoch": epoch, "position": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Makes training continue where the state was taken."""
        self._start = state_dict

    def _loader(self, stage: Stage, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> Batches:
        split = self.splits[stage]
        rank, world_size, device = 0, 1, self.device
        if self.trainer is not None:
            rank, world_size, device = (
                self.trainer.global_rank,
                self.trainer.world_size,
                self.trainer.strategy.root_device,
            )
        split = split.on(device)
        seed, view = (self.train_seed, self._view_to_train) if stage == "train" else (self.seed, floats)
        if isinstance(split.x, Pictures):  # nothing was fixed in memory
            view = self._view_to_train
        return Batches(split, batch_size, shuffle, seed, rank, world_size, device, view, drop_last)

    def _view_to_train(self, x: Tensor) -> Tensor:
        """Draws bits or noise."""
        if self.binarize == "dynamic":
            return bits(x).float()
        return (x + torch.rand(x.shape, device=x.device)) / 256 if self.dequantize else floats(x)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + purpose)

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
            x = bits(x, generator) * 255
        elif self.dequantize and name != "train":
            x = (x + torch.rand(x.shape, generator=generator)) / 256
        return Split(x, split.y)
