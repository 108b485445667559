"""The data module: any source of images, split, binarised and batched."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae_exp.conditions import condition_of
from vae_exp.data.augment import Augment, Transform
from vae_exp.data.contents import Contents
from vae_exp.data.cut import Division, check_labelled, check_sizes, keep_labels
from vae_exp.data.loader import Batches
from vae_exp.data.representation import Binarize, Levels, floats
from vae_exp.data.scale import Scale, Scaling, check_scale, remedy, rescaled
from vae_exp.data.split import AnySplit, Source, Split, check_split
from vae_exp.parts import as_part

__all__ = ["Images"]

Stage = Literal["train", "val", "test"]


class Images(pl.LightningDataModule):
    """Images in memory (as bytes, on the device if it has enough memory) or in files; batches are floats.

    Batches are `(x, y)`: x `(B, C, H, W)` float, y `(B,)` long, -1 for no label, or attributes `(B, A)` float.

    Arguments:
        source: Where the images come from.
        root: The folder of the files.
        image_shape: `(C, H, W)`, checked against the files.
        num_classes: Number of labels, None for no labels; checked against the files.
        attributes: Names and kinds of the numbers in a row of y, see `vae_exp.conditions.Attributes`; None for labels.
        train_size: Number of images left to train on, checked against the files; None for no check.
        train_limit: So many of these are trained on, of every class its share, drawn by `seed`; None for all.
        levels: See `Representation`, also for `binarize` and `dequantize`.
        scale: How real numbers are brought near [0, 1], fitted to the training images: `none`, `standardize`, `range`.
        scaled: The shift and the factor that a run has fitted; None to fit them.
        val_size: Number of images to cut from train for validation, if the source has no such split.
        test_size: Number of images to cut from train for the test, if the source has no such split.
        folds: In how many parts the training images are divided; one of them is the test split. None: no folds.
        fold: Which of them is tested, from 0.
        augment: Transforms of torchvision's v2, one after the other, on each training image; None for none.
        binarize: Whether, and how, grey levels become bits.
        dequantize: Whether levels get noise that makes them real numbers.
        labelled: Number of training images that keep their label, the same number of each class; the others have
            y = -1. None: all.
        labelled_per_batch: So many images at the start of each training batch have a label, and the others have none.
            None: the images come as they are.
        batch_size: Images in a training batch of all processes together.
        eval_batch_size: The same for validation and test.
        seed: Fixes the split, the labels that are kept, the evaluation bits and the dequantisation noise.
        train_seed: Fixes the order of the images, the training bits and the noise of each step.

    Attributes:
        condition: What y is.
        contents: How many images of how many files there are, known when they are read.
        scale: The shift and the factor of real numbers, None if there are none, or not yet.
        remedy: What to set if real numbers are far from [0, 1], known when they are read.
        folded: Which images are divided into how many folds, and how; empty without folds.

    Raises:
        ValueError: If an argument is out of its range, or the files do not agree with the arguments.
    """

    def __init__(
        self,
        source: Source,
        root: str,
        image_shape: Sequence[int],
        num_classes: int | None,
        attributes: Sequence[Mapping[str, Any]] | None = None,
        train_size: int | None = None,
        train_limit: int | None = None,
        levels: Levels = 256,
        scale: Scaling = "none",
        scaled: Sequence[float] | None = None,
        val_size: int | None = None,
        test_size: int | None = None,
        folds: int | None = None,
        fold: int = 0,
        augment: Sequence[Transform] | None = None,
        binarize: Binarize = "none",
        dequantize: bool = False,
        labelled: int | None = None,
        labelled_per_batch: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        seed: int = 0,
        train_seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_labelled(labelled, labelled_per_batch, num_classes, batch_size)
        self.source = as_part(source, Source)
        self.representation = self.source.representation(levels, binarize, dequantize)
        self.scaling = check_scale(scale, self.representation)
        self.scale = None if scaled is None else Scale(*scaled)
        self.remedy = ""
        self.division = Division(train_size, train_limit, val_size, test_size, folds, fold, seed)
        self.folded = ""
        self.augment = Augment(augment, image_shape, self.representation) if augment else None
        self.root = Path(root)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.condition = condition_of(num_classes, attributes)
        self.labelled = labelled
        self.labelled_per_batch = labelled_per_batch
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.train_seed = seed, train_seed
        self.splits: dict[str, AnySplit] = {}
        self.contents = Contents()
        self.device = torch.device("cpu")  # of the batches, if there is no trainer that sets it
        self._train_batches: Batches | None = None
        self._start = {"epoch": 0, "position": 0}

    @property
    def title(self) -> str:
        """What the likelihood scores, in words; runs can be compared if it is the same."""
        scale = "" if self.scale is None else f", (x - {self.scale.shift:.6g}) / {self.scale.factor:.6g}"
        return self.representation.title + scale

    @property
    def checksums(self) -> dict[str, str]:
        """The checksum of each split read so far; for pictures in files, that of their names and sizes."""
        return {name: split.checksum for name, split in self.splits.items()}

    def prepare_data(self) -> None:
        """Fetches the files, on one process."""
        self.source.fetch(self.root)

    def setup(self, stage: str) -> None:
        """Reads and splits the images; keeps test images only for the stage `test`."""
        needed: tuple[Stage, ...] = ("test",) if stage == "test" else ("train", "val")
        if all(name in self.splits for name in needed):
            return
        splits = self._load()
        num_train = len(splits["train"].y)
        if "train" in needed and self.labelled is not None and self.num_classes is not None:
            splits["train"] = keep_labels(splits["train"], self.labelled, self.num_classes, self.division.generator(5))
            if self.labelled_per_batch is not None and self.labelled == num_train:
                raise ValueError(
                    f"data.labelled_per_batch={self.labelled_per_batch}: every training image has a label, so set null"
                )
        for name in needed:
            self.splits[name] = self._fixed(splits[name], name)
        if "train" in needed and num_train < self.batch_size:
            raise ValueError(f"data.batch_size={self.batch_size} is more than the {num_train} training images")

    def check_shares(self, world_size: int) -> None:
        """Raises ValueError if a training batch cannot be divided evenly among the processes."""
        if self.batch_size % world_size:
            raise ValueError(f"data.batch_size={self.batch_size} cannot be divided evenly among {world_size} processes")

    def train_dataloader(self) -> Batches:
        """Shuffled batches; the same ones each epoch with `trainer.overfit_batches`."""
        batches = self._loader("train", self.batch_size, shuffle=True, drop_last=True)
        batches.labelled_per_batch = self.labelled_per_batch
        batches.augment = self.augment
        objective = getattr(getattr(self.trainer, "lightning_module", None), "objective", None)
        batches.gives_rows = getattr(objective, "reads_rows", False)
        batches.repeats = getattr(objective, "repeats", 1)
        batches.is_order_kept = getattr(self.trainer, "overfit_batches", 0) > 0
        batches.epoch, batches.position = self._start["epoch"], self._start["position"]
        self._train_batches = batches
        return batches

    def training_images(self, whole: bool = False) -> Batches:
        """Every training image once in each pass, in the form used in training; parts are fitted to them.

        Batches of `eval_batch_size`, in an order fixed by `train_seed`, another one in each pass. Needs `setup("fit")`.

        Arguments:
            whole: Each process gets all images. Otherwise it gets its share, and the last batch may have none for it.
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
        """Every image of a split once, in order; for train in the form used in training."""
        return self._loader(stage, self.eval_batch_size)

    def represent(self, x: Tensor) -> Tensor:
        """Bytes of other pictures, `(N, C, H, W)`, in the form in which the model is given test images."""
        self.representation.check("input", x)
        x = x if self.scale is None else self.scale(x)
        return floats(self._fixed(Split(x, torch.full((len(x),), -1)), "test").pixels(slice(None)))

    def on(self, device: torch.device) -> "Images":
        """The same images with batches on `device`, without a trainer."""
        data = copy(self)
        data.device, data.trainer = device, None
        return data

    def only(self, stage: Stage, chosen: Tensor) -> "Images":
        """The same images, but of one split only those of a mask `(N,)`. The split must have been read."""
        data = copy(self)
        data.splits = {**self.splits, stage: self.splits[stage].only(chosen)}
        return data

    def like(self, other: "Images") -> "Images":
        """These images in the form in which a model of `other` is given its images; all keep their labels.

        Raises:
            ValueError: If they have another size, or cannot be made the same kind of pixels.
        """
        data = copy(self)
        data.representation = self.representation.like(other.representation)
        data.labelled = data.labelled_per_batch = None
        data.device, data.scaling, data.scale = other.device, other.scaling, other.scale
        if (data.image_shape, data.representation.support) != (other.image_shape, other.representation.support):
            given, needed = (f"{list(d.image_shape)}, {d.representation.title}" for d in (data, other))
            raise ValueError(f"its images are {given}, but those of the run are {needed}")
        return data

    def shown(self, images: Tensor, stage: Stage) -> Tensor:
        """Images `(N, C, H, W)`, of the data or of the model, for drawing: levels from 0, black, to 1, white.

        For real numbers, black and white are the smallest and the largest pixel of at least a hundred images (or all)
        of the split `stage`, which must have been read.
        """
        if not self.representation.is_real:
            return images
        split = self.splits[stage]
        x = split.pixels(slice(None, None, max(1, len(split.y) // 100)))
        low, high = float(x.min()), float(x.max())
        return (images - low) / max(high - low, 1e-12)

    def with_all_labels(self) -> "Images":
        """The same images, read again, with the labels of all training images; itself if it has them all."""
        if self.labelled is None:
            return self
        data = copy(self)
        data.labelled, data.labelled_per_batch, data.splits = None, None, {}
        data.setup("fit")
        return data

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that were used for training."""
        if self.trainer is None or self._train_batches is None:
            return self._start
        # Not the number that the loader has given, because an interrupted step is repeated.
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        epoch = self._train_batches.epoch
        # `processed`, because a checkpoint can be written at the end of a batch, before it counts as `completed`.
        done: int = progress.current.processed  # type: ignore[attr-defined]
        if progress.is_last_batch and done == progress.current.ready:
            # A run that was resumed in the validation after its epoch has given no batch of the next one yet.
            return {"epoch": epoch + (self._train_batches.position > 0), "position": 0}
        return {"epoch": epoch, "position": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Makes training continue from the place where the state was saved."""
        self._start = state_dict

    def _loader(self, stage: Stage, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> Batches:
        split = self.splits[stage]
        rank, world_size, device = 0, 1, self.device
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device
        view = floats if split.is_fixed and stage != "train" else self.representation.view
        seed = self.train_seed if stage == "train" else self.seed
        return Batches(split.on(device), batch_size, shuffle, seed, rank, world_size, device, view, drop_last)

    def _load(self) -> dict[str, AnySplit]:
        """Train, val and test, checked and cut."""
        splits = dict(self.source.load(self.root))
        for name, split in splits.items():
            check_split(name, split, self.image_shape, self.condition, self.representation)
        self.folded = self.division.folded(splits["train"])
        notes = [*self.source.notes, *self.division.notes(splits)]
        splits = self.division.of(splits)
        sizes = {name: len(splits[name].y) for name in ("train", "val", "test")}
        if self.scaling != "none":
            splits, self.scale = rescaled(splits, self.scaling, self.scale)
            notes.append(f"scaled to (x - {self.scale.shift:.6g}) / {self.scale.factor:.6g}")
        elif self.representation.can_be_scaled:
            self.remedy = remedy(splits["train"])
        notes += [] if self.augment is None else [self.augment.note]
        self.contents = Contents(sizes, self.source.left_out, notes, self.representation.unit)
        return splits

    def _fixed(self, split: AnySplit, name: Stage) -> AnySplit:
        generator = self.division.generator(("train", "val", "test").index(name) + 2)
        return split.fixed(self.representation, generator, in_training=name == "train")
