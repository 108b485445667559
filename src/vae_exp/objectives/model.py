"""What an objective knows about a model, and what every objective checks."""

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.parts import Likelihood, Prior

__all__ = ["Model", "check_choice", "check_count"]


class Model(Protocol):
    """What an objective knows about a model."""

    prior: Prior
    likelihood: Likelihood

    def draw(
        self,
        x: Tensor,
        y: Tensor | None,
        num_samples: int = 1,
        z: Tensor | None = None,
        stop: Collection[str] = (),
    ) -> Draw:
        """`(B, C, H, W), (B,) ->` K = num_samples latents for each image, and the distributions that score them."""


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
