"""What encoders, decoders and chains use between two layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["activation_class", "check_inputs", "normalization_of", "residual"]


def activation_class(part: str, name: str) -> type[nn.Module]:
    """The class with this name in `torch.nn`.

    Raises:
        ValueError: If there is none; the message names the key of the part.
    """
    found = getattr(nn, str(name), None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{part}.activation={name}: torch.nn has no such class; it has ReLU, GELU, SiLU, Tanh, ...")
    return found


def normalization_of(part: str, kind: str, of_maps: bool) -> Callable[[int], list[nn.Module]]:
    """A function from a number of features, or feature maps, to their normalisation: a list of one layer or none.

    Raises:
        ValueError: If there is no such kind; the message names the key of the part.
    """
    kinds: dict[str, Callable[[int], list[nn.Module]]] = {
        "none": lambda width: [],
        "batch": lambda width: [nn.BatchNorm2d(width) if of_maps else nn.BatchNorm1d(width)],
        "layer": lambda width: [nn.GroupNorm(1, width) if of_maps else nn.LayerNorm(width)],
    }
    if kind not in kinds:
        raise ValueError(f"{part}.normalization={kind}: choose none, batch or layer")
    return kinds[kind]


def check_inputs(part: str, given: Tensor, shape: Sequence[int], c: Tensor | None, context_dim: int) -> None:
    """Checks the inputs of a network; torch's own error would only say that matrices cannot be multiplied.

    Arguments:
        part: encoder or decoder.
        given: Images or latents, `(N, *shape)`.
        shape: The shape of one image or latent.
        c: The context, `(N, context_dim)` or None.
        context_dim: Its width, 0 for none.

    Raises:
        ValueError: If one does not fit; the message names the shapes.
    """
    if given.shape[1:] != tuple(shape) or not given.is_floating_point():
        needed = f"floating-point numbers (N, {', '.join(map(str, shape))})"
        raise ValueError(f"{part} reads {needed}, not {given.dtype} {tuple(given.shape)}")
    fits = c is None if context_dim == 0 else c is not None and c.shape == (given.shape[0], context_dim)
    if not fits:
        needed = f"c = model.context(y), (N, {context_dim}), beside" if context_dim else "nothing beside"
        raise ValueError(f"{part} reads {needed} {tuple(given.shape)}; c is {None if c is None else tuple(c.shape)}")


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def residual(width: int, act: type[nn.Module], norm: Callable[[int], list[nn.Module]], depth: int) -> nn.Module:
    """A block that keeps the number of channels and the size, one of `depth` such blocks."""
    first, last = (nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(2))
    # Variances of branches add up: with 1 / depth for each, the output of a deep network starts as large as that of one
    # block. Zeros would do that, too, but then the first step would not reach the first convolution.
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(depth**-0.5)
    return _Residual(*norm(width), act(), first, *norm(width), act(), last)
