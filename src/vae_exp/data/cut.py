"""What is taken from the training images: images to validate and test on, a fold, and labels of all but a few."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_exp.data.split import AnySplit

__all__ = ["Division", "check_labelled", "check_sizes", "cut", "fold_out", "keep_labels"]


@dataclass(frozen=True)
class Division:
    """How the images of a source become train, val and test.

    Arguments:
        train_size: Number of images left to train on, checked; None for no check.
        train_limit: So many of these are trained on, of every class its share; None for all.
        val_size: Number of images to cut from train to validate on, if there is no such split.
        test_size: Number of images to cut from train to test on, if there is no such split.
        folds: In how many parts the training images are divided; one of them is the test split. None: no folds.
        fold: Which of them, from 0.
        seed: Fixes what is drawn.

    Raises:
        ValueError: If there is no such fold.
    """

    train_size: int | None
    train_limit: int | None
    val_size: int | None
    test_size: int | None
    folds: int | None
    fold: int
    seed: int

    def __post_init__(self) -> None:
        if self.folds is not None and (self.folds < 2 or not 0 <= self.fold < self.folds):
            raise ValueError(
                f"data.folds={self.folds} data.fold={self.fold}: 2 folds or more are needed, and a fold from 0 to "
                f"{max(1, self.folds - 1)}"
            )

    def of(self, splits: Mapping[str, AnySplit]) -> dict[str, AnySplit]:
        """Train, val and test of the splits of a source.

        Raises:
            ValueError: If there are too few images, or not as many as stated.
        """
        splits = dict(splits)
        if self.folds is not None:
            splits["train"], splits["test"] = fold_out(splits["train"], self.folds, self.fold, self.generator(6))
        for name, size, purpose in (("test", self.test_size, 0), ("val", self.val_size, 1)):
            if name not in splits:
                splits["train"], splits[name] = cut(splits["train"], name, size, self.generator(purpose))
        found = len(splits["train"].y)
        if self.train_size not in (None, found):
            way = f"{found}, or null" if self.folds is None else "null, for the sizes of folds differ"
            raise ValueError(
                f"data.train_size={self.train_size}, but {found} images are left to train on: set data.train_size={way}"
            )
        if self.train_limit is not None and self.train_limit > found:
            raise ValueError(
                f"data.train_limit={self.train_limit}, but {found} images are left to train on: "
                "give fewer, or null for all"
            )
        if self.train_limit not in (None, found):
            splits["train"] = cut(splits["train"], "train", self.train_limit, self.generator(7))[1]
        return splits

    def notes(self, splits: Mapping[str, AnySplit]) -> list[str]:
        """What a user has to be told of the splits of a source."""
        limited = [f"data.train_limit={self.train_limit} of those left to train on"] if self.train_limit else []
        if self.folds is None:
            return limited
        aside = ["the test images of the set are left aside"] if "test" in splits else []
        return [f"fold {self.fold} of {self.folds} is tested", *aside, *limited]

    def folded(self, train: AnySplit) -> str:
        """Which images are divided into how many folds, and how; empty without folds."""
        return "" if self.folds is None else f"{self.folds} folds of {train.checksum}, data.seed={self.seed}"

    def generator(self, purpose: int) -> torch.Generator:
        """The random numbers of a purpose."""
        return torch.Generator().manual_seed(1000 * self.seed + purpose)


def check_sizes(**sizes: int) -> None:
    """Raises ValueError if a size of a batch, by the name of its key, is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"data.{name}={size}: at least 1 is needed")


def check_labelled(number: int | None, per_batch: int | None, num_classes: int | None, batch_size: int) -> None:
    """Holds `data.labelled` and `data.labelled_per_batch` against the classes and the size of a batch.

    Raises:
        ValueError: If one of them cannot be, with its key.
    """
    if number is not None and num_classes is None:
        raise ValueError(f"data.labelled={number}: the data have no labels (data.num_classes=null), set it to null")
    if number is not None and num_classes is not None and number < num_classes:
        raise ValueError(
            f"data.labelled={number}: at least {num_classes} are needed, one for each class; null keeps all"
        )
    if per_batch is not None and (number is None or not 0 < per_batch < batch_size):
        raise ValueError(
            f"data.labelled_per_batch={per_batch}: with a number of data.labelled choose 1 to "
            f"{batch_size - 1}, less than data.batch_size; otherwise null"
        )


def fold_out(split: AnySplit, folds: int, fold: int, generator: torch.Generator) -> tuple[AnySplit, AnySplit]:
    """The split without a fold, and this fold. All folds together are the split; their sizes, and the numbers of each
    class in them, differ by at most one.

    Raises:
        ValueError: If there are fewer images than folds.
    """
    total = len(split.y)
    if total < folds:
        raise ValueError(f"data.folds={folds}: there are only {total} images")
    order = _class_by_class(torch.randperm(total, generator=generator), split.y)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[fold::folds]] = True
    return split.only(~chosen), split.only(chosen)


def cut(split: AnySplit, name: str, size: int | None, generator: torch.Generator) -> tuple[AnySplit, AnySplit]:
    """Cuts off `size` images, of every class its share. Returns the rest, and the split `name`.

    Raises:
        ValueError: If there are fewer images, or none would be left.
    """
    total = len(split.y)
    if size is None or not 0 < size < total:
        raise ValueError(
            f"data.{name}_size={size}: the set has no {name} split, a part of its {total} images is needed"
        )
    order = _class_by_class(torch.randperm(total, generator=generator), split.y)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[torch.arange(size) * total // size]] = True
    return split.only(~chosen), split.only(chosen)


def _class_by_class(order: Tensor, y: Tensor) -> Tensor:
    """The same order within each class, the classes one after another; rows of attributes have no classes."""
    return order if y.dim() > 1 else order[torch.argsort(y[order], stable=True)]


def keep_labels(split: AnySplit, number: int, num_classes: int, generator: torch.Generator) -> AnySplit:
    """The split with the labels of `number` of its images, -1 for the others; counts of classes differ by at most one.

    Raises:
        ValueError: If there are fewer images, in all or in a class.
    """
    if number > len(split.y):
        raise ValueError(
            f"data.labelled={number} is more than the {len(split.y)} training images; null keeps every label"
        )
    more = torch.randperm(num_classes, generator=generator)[: number % num_classes]  # the classes that get one more
    wanted = torch.full((num_classes,), number // num_classes).index_add_(0, more, torch.ones_like(more))
    there = split.y.bincount(minlength=num_classes)
    if (wanted > there).any():
        k = int((wanted - there).argmax())
        raise ValueError(
            f"data.labelled={number}: that is {wanted[k]} images of each class, and class {k} has {there[k]}; "
            "give fewer, or null to keep every label"
        )
    order = torch.randperm(len(split.y), generator=generator)
    y = torch.full_like(split.y, -1)
    for k in range(num_classes):
        y[order[split.y[order] == k][: wanted[k]]] = k
    return split.with_labels(y)
