"""The ledger: exact means over images, whatever the batch size, precision or number of processes."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Mean"]


class Mean:
    """The mean over images of one vector of quantities, accumulated without leaving the device.

    The sums are float64 (float32 on Apple's `mps`, which has no float64): sixty thousand images of a hundred
    nats each would lose digits in float32. The state is `(sum_1, ..., sum_n, number of images)`.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def update(self, total: Tensor, num_images: int) -> None:
        """Adds a batch: `total (n,)`, the sums over its `num_images` images."""
        dtype = torch.float32 if total.device.type == "mps" else torch.float64
        total = total.detach().to(dtype)
        batch = torch.cat([total, total.new_full((1,), num_images)])
        self.sums = batch if self.sums is None else self.sums + batch

    def compute(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the means `(n,)` over the images of all processes and starts anew.

        Arguments:
            reduce: Sums a tensor over the processes.

        Raises:
            RuntimeError: If nothing was added.
        """
        if self.sums is None:
            raise RuntimeError("a mean over no images")
        sums = reduce(self.sums)
        self.sums = None
        return sums[:-1] / sums[-1]
