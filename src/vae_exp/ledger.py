"""The ledger: exact means over images for any batch size, precision and number of processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vae_exp.precision import exact

__all__ = ["Ledger", "Mean", "NonFiniteError"]


class NonFiniteError(ArithmeticError):
    """A loss that is not a finite number; the message names the term and the batch."""


class Mean:
    """The mean over images of one vector of quantities, accumulated on the device.

    The sums are float64 (float32 on Apple's `mps`, which has no float64): with float32, a sum over sixty thousand
    images of a hundred nats each would lose digits. The state is `(sum_1, ..., sum_n, number of images)`.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def update(self, total: Tensor, num_images: int) -> None:
        """Adds a batch: `total (n,)`, the sums over its `num_images` images."""
        total = total.detach().to(exact(total))
        batch = torch.cat([total, total.new_full((1,), num_images)])
        self.sums = batch if self.sums is None else self.sums + batch

    def compute(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the means `(n,)` over the images of all processes and starts again from zero.

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
    """The means over images of the terms of a draw and of the loss, nats per image, and of `elbo = -recon - kl`.

    Batches are first only stored and later added up, many at once, so that a step does not wait for the device. At that
    time the loss is also checked to be finite.

    Arguments:
        stage: train, val or test, used in messages.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.mean = Mean()
        self.names: list[str] = []
        self.noted: list[tuple[dict[str, Tensor], Tensor, str]] = []

    def note(self, terms: dict[str, Tensor], loss: Tensor, where: str) -> None:
        """Stores a batch: terms `(B,)`, the loss, and a description of its place for messages."""
        self.noted.append(({name: term.detach() for name, term in terms.items()}, loss.detach(), where))

    def add_up(self) -> None:
        """Adds the stored batches to the mean.

        Raises:
            NonFiniteError: If a loss or a term is infinite or nan.
        """
        if not self.noted:
            return
        batches, losses, _ = zip(*self.noted, strict=True)
        self.names = [*batches[0], "loss"]
        dtype = exact(losses[0])
        sums = [torch.cat([terms[name] for terms in batches]).to(dtype).sum() for name in batches[0]]
        images = torch.tensor([len(terms["recon"]) for terms in batches])
        sums.append(torch.stack(losses).to(dtype) @ images.to(losses[0].device, dtype))
        total = torch.stack(sums)
        if not total.isfinite().all():
            self._raise_non_finite()
        self.mean.update(total, int(images.sum()))
        self.noted = []

    def compute(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means over the images of all processes, by name; then starts again from zero.

        Arguments:
            reduce: Sums a tensor over the processes.
        """
        self.add_up()
        means = dict(zip(self.names, self.mean.compute(reduce).tolist(), strict=True))
        return {"elbo": -(means["recon"] + means["kl"]), **means} if "kl" in means else means

    def state_dict(self) -> dict[str, Any]:
        """The sums that `compute` has not used yet."""
        return {"names": self.names, "sums": None if self.mean.sums is None else self.mean.sums.cpu()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continues from these sums."""
        self.names = state["names"]
        self.mean.sums = None if state["sums"] is None else state["sums"].to(device)

    def _raise_non_finite(self) -> None:
        for terms, loss, where in self.noted:
            bad = []
            for name, term in terms.items():
                wrong = term[~term.isfinite()]
                if len(wrong):
                    bad.append(f"{name} is {wrong[0].item()} for {len(wrong)} of {len(term)} images")
            if bad or not loss.isfinite():
                raise NonFiniteError(
                    f"{self.stage}/loss is {loss.item()} at {where}: "
                    f"{'; '.join(bad) or ' and '.join(terms) + ' are finite, but the objective is not'}.\n"
                    "Ways out: a smaller optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32-true."
                )
