"""What is taken from the training images: images to validate and test on, and the labels of all but a few images."""

import torch

from vae_exp.data.split import AnySplit

__all__ = ["check_labelled", "cut", "keep_labels"]


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
    order = torch.randperm(total, generator=generator)
    order = order[torch.argsort(split.y[order], stable=True)]
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[torch.arange(size) * total // size]] = True
    return split.only(~chosen), split.only(chosen)


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
