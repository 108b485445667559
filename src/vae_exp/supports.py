"""Sets of pixel values, as constraints of torch: those that torch lacks, and which one a likelihood scores."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions.constraints import Constraint

__all__ = ["levels", "support_of"]


class _Levels(Constraint):
    """The 256 numbers k / 255, up to the rounding of the tensor's type."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        k = 255 * value
        return (k - k.round()).abs().le(1e-3) & value.ge(0) & value.le(1)

    def __repr__(self) -> str:
        return "levels k/255"


levels = _Levels()


def support_of(likelihood: nn.Module, image_shape: Sequence[int]) -> Constraint:
    """The images that a likelihood scores: the support of its distribution, of one pixel if they are independent.

    Arguments:
        likelihood: `params -> p(x | z)`, a `vae_exp.parts.Likelihood`.
        image_shape: `(C, H, W)`.

    Raises:
        ValueError: If the distribution does not say its support.
    """
    channels, *size = image_shape
    device = next((tensor.device for tensor in (*likelihood.parameters(), *likelihood.buffers())), None)
    params = torch.zeros(likelihood.params_per_pixel * channels, *size, device=device)  # type: ignore[arg-type, operator]
    with torch.no_grad():
        px = likelihood(params)
    one = px
    while isinstance(one, Independent):
        one = one.base_dist
    if type(one).support is Distribution.support:
        raise ValueError(
            f"likelihood: {type(one).__name__} does not say which values it scores. Give the class a support, one of "
            "torch.distributions.constraints"
        )
    return getattr(px.support, "base_constraint", px.support)
