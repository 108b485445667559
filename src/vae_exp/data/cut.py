"""What is cut from the training images: those to validate and test on."""

import torch

from vae_exp.data.split import Split

__all__ = ["cut"]


def cut(split: Split, name: str, size: int | None, generator: torch.Generator) -> tuple[Split, Split]:
    """Cuts `size` images off, every class by its share: the rest, and the split `name`.

    Raises:
        ValueError: If there are not as many, or none would be left.
    """
    total = len(split.x)
    if size is None or not 0 < size < total:
        raise ValueError(
            f"data.{name}_size={size}: the set has no {name} split, a part of its {total} images is needed"
        )
    order = torch.randperm(total, generator=generator)
    order = order[torch.argsort(split.y[order], stable=True)]
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[torch.arange(size) * total // size]] = True
    return Split(split.x[~chosen], split.y[~chosen]), Split(split.x[chosen], split.y[chosen])
