"""A training step as one CUDA graph: one launch instead of a few hundred."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from vae_exp.models import VAE

__all__ = ["Graph"]

log = logging.getLogger("vae_exp")

Batch = tuple[Tensor, Tensor]


class Graph:
    """Runs a step eagerly a few times, then captures it, then replays it.

    The eager steps are ordinary ones; in them libraries and the optimizer allocate what they keep. A step that
    cannot be captured stays eager, and the reason is logged. The generator of the noise is seeded between replays
    as between eager steps, so the numbers are the same.

    Arguments:
        step: `(batch, batch_idx) -> loss`: gradients to None, loss, backward, optimizer.
        model: Whose step it is.
        optimizer: Which it ends with.
        warmup: Eager steps before the capture.
    """

    def __init__(self, step: Callable[[Batch, int], Tensor], model: VAE, optimizer: Optimizer, warmup: int = 3) -> None:
        self.step = step
        self.model = model
        self.optimizer = optimizer
        self.eager_left = warmup
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; returns its loss, which the next one overwrites."""
        if self.graph is None and not self.eager_left:
            self.eager_left = -1  # one attempt
            self._capture(batch)
        if self.graph is None:
            self.eager_left -= self.eager_left > 0
            return self._aside(batch, batch_idx)
        for static, given in zip(self.batch, batch, strict=True):
            static.copy_(given)
        self.graph.replay()
        recon, kl, loss, _ = self.terms
        self.model.note("train", recon.clone(), kl.clone(), loss.clone(), batch_idx)
        return loss

    def _aside(self, batch: Batch, batch_idx: int) -> Tensor:
        """A step on another stream than the default one, which cannot be captured."""
        if self.eager_left < 0:
            return self.step(batch, batch_idx)
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = self.step(batch, batch_idx)
        current.wait_stream(stream)
        return loss

    def _capture(self, batch: Batch) -> None:
        noted = self.model.ledgers["train"].noted
        before = len(noted)
        x, y = batch
        self.batch = x.clone(), y.clone()
        graph = torch.cuda.CUDAGraph()
        # Fused optimizers keep all they change on the device, as those that are `capturable` do.
        fused = [group for group in self.optimizer.param_groups if group.get("fused") and not group.get("capturable")]
        for group in fused:
            group["capturable"] = True
        try:
            with torch.cuda.graph(graph):
                self.step(self.batch, 0)
            self.terms = noted[-1]
            self.graph = graph
        except Exception as error:  # whatever a part does that a graph cannot hold
            reason = str(error).strip().splitlines() or [type(error).__name__]
            log.warning("the step cannot be captured as a CUDA graph and runs eagerly: %s", reason[0])
        finally:
            del noted[before:]  # capturing computes nothing
            for group in fused:
                group["capturable"] = False
