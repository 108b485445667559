"""What y is, and how it becomes the context c of a conditional model: one class, or a row of attributes.

The data say which (`Images.condition`), and every use of y asks it: nothing else knows what y holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vae_exp.conditions.attributes import Attributes
from vae_exp.conditions.classes import Classes, Label

__all__ = ["Attributes", "Classes", "Label", "condition_of"]


def condition_of(num_classes: int | None, attributes: Sequence[Mapping[str, Any]] | None) -> "Classes | Attributes":
    """What y is by the keys of `data`.

    Arguments:
        num_classes: `data.num_classes`.
        attributes: `data.attributes`, columns as `vae_exp.columns.columns_of` takes them.

    Raises:
        ValueError: If y would be both.
    """
    if attributes is None:
        return Classes(num_classes or 0)
    if num_classes is not None:
        raise ValueError(
            f"data.num_classes={num_classes}, but y is {len(attributes)} attributes: set data.num_classes=null, "
            "or data.attributes=null"
        )
    return Attributes(attributes)
