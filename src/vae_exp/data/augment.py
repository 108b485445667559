"""Changes of the training images, such as flips: transforms of torchvision's v2, each image by itself."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from vae_exp.config import ConfigError
from vae_exp.data.representation import Representation

__all__ = ["Augment", "Transform"]

Transform = Callable[[Tensor], Tensor]


@final
class Augment:
    """Transforms, one after the other, that leave the shape, the type and the kind of pixels as they are.

    Arguments:
        transforms: Each from an image `(C, H, W)`, uint8 or float32, to another; random with torch's generators.
        image_shape: `(C, H, W)`.
        representation: What pixels are.

    Raises:
        ValueError: If a blank image does not come out as an image of the same kind.
    """

    def __init__(
        self, transforms: Sequence[Transform], image_shape: Sequence[int], representation: Representation
    ) -> None:
        if representation.unit != "image":
            raise ValueError(f"data.augment is for pictures, the data are {representation.title}: leave it out")
        self.transforms = list(transforms)
        self.representation = representation
        dtype = torch.uint8 if isinstance(representation.levels, int) else torch.float32
        with torch.random.fork_rng(devices=[]):
            for place, transform in enumerate(self.transforms):
                if not callable(transform):
                    raise ValueError(f"data.augment[{place}]={transform}: a transform is needed, with its _target_")
                x = torch.zeros(*image_shape, dtype=dtype)
                try:
                    y = transform(x)
                except Exception as error:  # whatever a transform of others raises
                    raise ValueError(f"data.augment[{place}]: {type(transform).__name__} fails: {error}") from error
                if not isinstance(y, Tensor) or (y.shape, y.dtype) != (x.shape, x.dtype):
                    raise ValueError(
                        f"data.augment[{place}]: {type(transform).__name__} makes {_kind(y)} of {_kind(x)}; "
                        "the images must keep their shape and type"
                    )

    @property
    def note(self) -> str:
        """What they do to the numbers."""
        names = ", ".join(type(transform).__name__ for transform in self.transforms)
        return (
            f"training images are augmented ({names}): train/elbo is a bound for those, and the model learns their "
            "density; val and test are of the images as they are"
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Pixels of a batch `(B, C, H, W)`, each image with its own random numbers.

        Raises:
            ConfigError: If they are then of another kind, such as bits that became grey.
        """
        images = []
        for image in x:
            for transform in self.transforms:
                image = transform(image)
            images.append(image)
        changed = torch.stack(images)
        try:
            self.representation.check("data.augment", changed)
        except ValueError as error:
            raise ConfigError(f"data.augment: the pixels are no longer what they were.\n{error}") from error
        return changed


def _kind(x: object) -> str:
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
