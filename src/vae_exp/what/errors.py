"""Errors of images compared with the true ones."""

from math import sqrt

from torch import Tensor

from vae_exp.precision import on_cpu

__all__ = ["mean_and_error", "squared_error"]


def squared_error(image: Tensor, x: Tensor, where: Tensor | None = None) -> Tensor:
    """`(B, C, H, W) -> (B,)`: the mean over the pixels of an image, or over those of `where`, `(B, 1, H, W)`."""
    errors = (image - x).square()
    if where is None:
        return errors.flatten(1).mean(dim=1)
    return (errors * where).flatten(1).sum(dim=1) / (x.shape[1] * where.flatten(1).sum(dim=1)).clamp(min=1)


def mean_and_error(name: str, each: Tensor) -> dict[str, float]:
    """The mean over images `(N,)`, and its standard error if there are at least two."""
    each = on_cpu(each)
    error = {f"{name}_se_images": float(each.std()) / sqrt(len(each))} if len(each) > 1 else {}
    return {name: float(each.mean()), **error}
