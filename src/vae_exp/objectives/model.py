"""What an objective states, what it knows about a model, and what every objective checks."""

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from vae_exp.draws import Draw, Stop
from vae_exp.parts import Likelihood, Prior

__all__ = ["Model", "Objective", "check_choice", "check_count"]


class Model(Protocol):
    """What an objective knows about a model."""

    prior: Prior
    likelihood: Likelihood

    def draw(self, x: Tensor, y: Tensor | None, num_samples: int = 1, z: Tensor | None = None, stop: Stop = ()) -> Draw:
        """`(B, C, H, W), (B,) ->` K = num_samples latents for each image, and the distributions that score them."""


class Objective:
    """`(model, x, y, step) -> loss, draw`, with what it may state beside. A plain function is one, too.

    Attributes:
        monitor: The metric that best checkpoint and early stopping follow.
        min_images: How many images of a batch it compares: on fewer, its loss lacks what it is for.
        learns_labels: Whether it learns from labels, and counts a labelled image less where batches hold more of them
            than the training set (`data.labelled_per_batch`).
        reads_rows: Whether in training it is called with a fifth argument, the numbers `(B,)` of the images in the
            training split.
        repeats: How many steps in a row it has the same images, with the same bits.
        iwae_samples: How many latents each bound has that it logs as `iwae`; None if it logs none.
    """

    monitor: str = "val/elbo"
    min_images: int = 1
    learns_labels: bool = False
    reads_rows: bool = False
    repeats: int = 1
    iwae_samples: int | None = None

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, nats per image, and the draw that it scored."""
        raise NotImplementedError


def check_count(key: str, count: int) -> int:
    """Returns the count.

    Raises:
        ValueError: If it is less than 1, or scheduled; the message names the key.
    """
    if callable(count):
        raise ValueError(f"objective.{key}: a count cannot be a schedule, give a whole number")
    if count < 1:
        raise ValueError(f"objective.{key}={count}: at least 1 is needed")
    return count


def check_choice(key: str, choice: str, choices: Collection[str]) -> str:
    """Returns the choice.

    Raises:
        ValueError: If it is none of `choices`; the message names the key.
    """
    if choice not in choices:
        raise ValueError(f"objective.{key}={choice}: choose one of {', '.join(choices)}")
    return choice
