"""A training step as one CUDA graph: one launch instead of a few hundred."""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Number
from types import FunctionType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vae_exp.models.module import Module, is_on_device

__all__ = ["Graph", "is_capturable"]

log = logging.getLogger("vae_exp")

Batch = tuple[Tensor, ...]
PLAIN = (Number, str, type(None))
EVERY = 1000  # replays from one comparison to the next
# By how much a replay may differ from the eager step, relative to it: the order of a sum on a GPU is not fixed, and
# Adam turns rounding into a whole step where a gradient is nearly 0. Other noise or another rate differ by far more.
ROUNDING = {"loss": 1e-3, "gradient": 1e-2, "updated weights": 2e-2}
OF_LIGHTNING = vars(pl.LightningModule()).keys()  # attributes that every module has and no part has set


class Graph:
    """Runs a step eagerly a few times, then captures it, then replays it.

    The eager steps are ordinary training steps. In them, libraries and the optimizer allocate the memory that they
    keep. A step that cannot be captured stays eager, and the reason is logged. A replay draws the noise that the eager
    step would draw, so the numbers are the same.

    A graph is not trusted. Its first replay, and every thousandth in the epoch in which it was captured, is compared
    with an eager step from the same weights, batch and noise, and the eager one is what counts. If they differ by more
    than rounding, a warning names what differs, and all further steps are eager.

    Arguments:
        step: `(batch, batch_idx) -> loss`: sets gradients to None, computes the loss, runs backward and the optimizer.
        model: The model that the step trains.
        optimizer: The optimizer that the step uses.
        warmup: Number of eager steps before the capture.
    """

    def __init__(
        self, step: Callable[[Batch, int], Tensor], model: Module, optimizer: Optimizer, warmup: int = 3
    ) -> None:
        self.step = step
        self.model = model
        self.optimizer = optimizer
        self.eager_left = warmup
        self.has_failed = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.replays = 0
        self.epoch = model.current_epoch
        self.built_in = self._built_in()

    def is_outdated(self) -> bool:
        """Whether something has changed that the captured step would ignore."""
        return self.built_in != self._built_in()

    def _built_in(self) -> list[Any]:
        groups = [
            {key: value for key, value in group.items() if key != "params" and not isinstance(value, Tensor)}
            for group in self.optimizer.param_groups
        ]
        held = [[id(parameter) for parameter in group["params"]] for group in self.optimizer.param_groups]
        trained = [parameter.requires_grad for parameter in self.model.parameters()]
        modes = [(module.training, len(module._forward_pre_hooks)) for module in self.model.modules()]
        own, *parts = (
            {name: value for name, value in vars(module).items() if name not in OF_LIGHTNING}
            for module in self.model.modules()
        )
        # For the model itself, only its plain values: it also holds objects that training changes at each step.
        own = {name: value for name, value in own.items() if isinstance(value, PLAIN)}
        numbers = _plain_values([own, parts, self.model.objective], set())
        return [copy.deepcopy(groups), held, trained, modes, numbers]

    def __call__(self, batch: Batch, batch_idx: int) -> Tensor:
        """Runs one step and returns its loss."""
        if self.eager_left:
            self.eager_left -= 1
            return self._aside(batch, batch_idx)
        if self.graph is None and not self.has_failed:
            self._capture(batch)
        if self.graph is None or [x.shape for x in batch] != [x.shape for x in self.batch]:
            return self.step(batch, batch_idx)
        for static, given in zip(self.batch, batch, strict=True):
            static.copy_(given)
        self.replays += 1
        if self.replays % EVERY == 1 and self.model.current_epoch == self.epoch:
            return self._compared(self.graph, batch_idx)
        self.graph.replay()
        terms = {name: term.clone() for name, term in self.terms.items()}  # the next replay overwrites them
        loss = self.loss.clone()
        self.model.note("train", terms, loss, batch_idx)
        return loss

    def _aside(self, batch: Batch, batch_idx: int) -> Tensor:
        """Runs a step on a stream of its own, because the default stream cannot be captured."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = self.step(batch, batch_idx)
        current.wait_stream(stream)
        return loss

    def _compared(self, graph: torch.cuda.CUDAGraph, batch_idx: int) -> Tensor:
        """Replays a step, takes it back, and makes it eagerly; gives the graph up if the two differ."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        changed = [*parameters, *self.model.buffers(), *(value for value in states if isinstance(value, Tensor))]
        before = _copies(changed)
        device = self.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            graph.replay()
        replayed, gradients, updated = float(self.loss.detach()), _copies(self.gradients), _copies(parameters)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        loss = self._aside(self.batch, batch_idx)
        eager = float(loss.detach())
        off = {
            "loss": abs(replayed - eager) / max(abs(eager), 1.0),
            "gradient": _off(gradients, _gradients(parameters), [torch.zeros_like(p) for p in parameters]),
            "updated weights": _off(updated, parameters, before[: len(parameters)]),
        }
        for parameter, place in zip(parameters, self.gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad = place.copy_(parameter.grad)  # the graph writes there
        wrong = next((name for name, by in off.items() if not by <= ROUNDING[name]), None)
        if wrong and math.isfinite(eager):  # the ledger names what is not finite
            self.graph, self.has_failed = None, True
            log.warning(
                "cuda_graphs: in a replayed step the %s is off by %.2g %% of the eager one; all steps run eagerly now",
                wrong,
                100 * off[wrong],
            )
        return loss

    def _capture(self, batch: Batch) -> None:
        noted = self.model.ledgers["train"].noted
        before = len(noted)
        self.batch = tuple(x.clone() for x in batch)
        graph = torch.cuda.CUDAGraph()
        # Fused optimizers keep everything that they change on the device, as `capturable` ones do.
        groups = self.optimizer.param_groups
        fused = [group for group in groups if group.get("fused") and not group.get("capturable", True)]
        for group in fused:
            group["capturable"] = True
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.step(self.batch, 0)
            self.terms, self.loss, _ = noted[-1]
            self.gradients = _gradients(p for p in self.model.parameters() if p.requires_grad)
            self.graph = graph
        except Exception as error:  # a part can do anything that a graph does not support
            self.has_failed = True
            reason = str(error).strip().splitlines() or [type(error).__name__]
            log.warning("the step cannot be captured as a CUDA graph and runs eagerly: %s", reason[0])
        finally:
            del noted[before:]  # capturing computes nothing
            for group in fused:
                group["capturable"] = False


def _copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradient of each parameter, 0 where it has none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def _off(replayed: Sequence[Tensor], eager: Sequence[Tensor], start: Sequence[Tensor]) -> float:
    """The norm of the difference of two steps, relative to the norm of the eager one from where both started; that of
    the parameter with the largest, where those that hardly move do not count."""
    away = torch.stack([(one - other.detach()).norm() for one, other in zip(replayed, eager, strict=True)])
    whole = torch.stack([(other.detach() - zero).norm() for other, zero in zip(eager, start, strict=True)])
    return float((away / whole.clamp(min=float(whole.max()) / 1000 + 1e-30)).max())


def _plain_values(held: Any, seen: set[int]) -> Any:
    """Numbers and strings of an object and of the objects in it, by name; None in place of tensors, modules, classes
    and functions."""
    if isinstance(held, PLAIN):
        return held
    if id(held) in seen or isinstance(held, Tensor | nn.Module | type | FunctionType):
        return None
    seen.add(id(held))
    if isinstance(held, list | tuple | set):
        return [_plain_values(value, seen) for value in held]
    values = held if isinstance(held, dict) else getattr(held, "__dict__", {})
    return {name: _plain_values(value, seen) for name, value in values.items()}


def is_capturable(optimizer: Optimizer) -> bool:
    """Whether a graph can hold the step of the optimizer, which counts no steps in Python."""
    return is_on_device(optimizer) or type(optimizer) is torch.optim.SGD
