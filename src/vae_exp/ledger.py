"""The ledger: exact means over images, whatever the batch size, precision or number of processes."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Ledger", "Mean", "NonFiniteError"]


class NonFiniteError(ArithmeticError):
    """A loss that is not a finite number; the message names the term and the batch."""


class Mean:
    """The mean over images of one vector of quantities, accumulated without leaving the device.

    The sums are float64 (float32 on Apple's `mps`, which has no float64): sixty thousand images of a hundred
    nats each would lose digits in float32. The state is `(sum_1, ..., sum_n, number of images)`.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def update(self, total: Tensor, num_images: int) -> None:
        """Adds a batch: `total (n,)`, the sums over its `num_images` images."""
        total = total.detach().to(_exact(total))
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


class Ledger:
    """The means over images of elbo, recon, kl and the loss, nats per image.

    Batches are noted as they are and added up later, many at once, so that a step waits for no device. That the
    loss is a finite number is checked then.

    Arguments:
        stage: train, val or test; for messages.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.mean = Mean()
        self.noted: list[tuple[Tensor, Tensor, Tensor, str]] = []

    def note(self, recon: Tensor, kl: Tensor, loss: Tensor, where: str) -> None:
        """Notes a batch: recon and kl `(B,)`, the loss, and, for messages, where it came."""
        self.noted.append((recon.detach(), kl.detach(), loss.detach(), where))

    def add_up(self) -> None:
        """Adds what was noted to the mean.

        Raises:
            NonFiniteError: If a loss, recon or kl is infinite or nan.
        """
        if not self.noted:
            return
        recons, kls, losses, _ = zip(*self.noted, strict=True)
        dtype = _exact(losses[0])
        recon, kl = torch.cat(recons).to(dtype).sum(), torch.cat(kls).to(dtype).sum()
        images = torch.tensor([len(recon) for recon in recons])
        loss = torch.stack(losses).to(dtype) @ images.to(losses[0].device, dtype)
        total = torch.stack([-(recon + kl), recon, kl, loss])
        if not total.isfinite().all():
            self._raise_non_finite()
        self.mean.update(total, int(images.sum()))
        self.noted = []

    def _raise_non_finite(self) -> None:
        for recon, kl, loss, where in self.noted:
            bad = []
            for name, term in (("recon", recon), ("kl", kl)):
                wrong = term[~term.isfinite()]
                if len(wrong):
                    bad.append(f"{name} is {wrong[0].item()} for {len(wrong)} of {len(term)} images")
            if bad or not loss.isfinite():
                raise NonFiniteError(
                    f"{self.stage}/loss is {loss.item()} at {where}: "
                    f"{'; '.join(bad) or 'recon and kl are finite, the objective is not'}.\n"
                    "Ways out: a smaller optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32-true."
                )


def _exact(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64
