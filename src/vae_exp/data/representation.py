"""The kind of pixels of a data set, and the form in which a model is given them."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from vae_exp.supports import levels as all_levels

__all__ = ["Binarize", "Levels", "Representation", "bits", "floats"]

Levels = int | Literal["unit", "count"] | None
Binarize = Literal["none", "threshold", "dynamic", "static"]


@dataclass(frozen=True)
class Representation:
    """Pixels as they are in the files, and as a likelihood scores them.

    Arguments:
        levels: For bytes, the number of values of a pixel in the files, 2 to 256. `unit`: real numbers in [0, 1].
            `count`: whole numbers from 0 on, bytes or float32. None: any real numbers, float32.
        binarize: `none`; `threshold` at one half; `static`: bits drawn once, with the grey levels as probabilities;
            `dynamic`: new bits each time an image is used in training, fixed bits for validation and test.
        dequantize: Adds uniform noise, `(level + u) / 256`; the noise is fixed for validation and test.

    Raises:
        ValueError: If these cannot be combined.
    """

    unit = "image"  # what an item is, in words
    levels: Levels = 256
    binarize: Binarize = "none"
    dequantize: bool = False

    def __post_init__(self) -> None:
        if self.binarize not in get_args(Binarize):
            raise ValueError(f"data.binarize={self.binarize}: choose none, threshold, dynamic or static")
        if self.levels not in (None, "unit", "count", *range(2, 257)):
            raise ValueError(
                f"data.levels={self.levels}: choose 2 to 256 for bytes, unit for real numbers in [0, 1], "
                "count for whole numbers from 0 on, null for any others"
            )
        if self.binarize != "none" and not isinstance(self.levels, int):
            raise ValueError(
                f"data.binarize={self.binarize} is for grey levels, but these pixels are {self._kind}: set it to none"
            )
        if self.dequantize and (self.binarize != "none" or self.levels != 256):
            given = "bits" if self.binarize != "none" else self._kind
            raise ValueError(f"data.dequantize=true is for 256 grey levels, not for {given}: set it to false")

    @property
    def _kind(self) -> str:
        """The kind of the pixels in the files, in words."""
        if isinstance(self.levels, int):
            return f"{self.levels} levels"
        return {None: "real numbers", "unit": "real numbers in [0, 1]", "count": "counts"}[self.levels]

    @property
    def title(self) -> str:
        """What the likelihood scores, in words; runs can be compared if it is the same."""
        if self.binarize != "none":
            return f"bits, {self.binarize}"
        if self.levels == 2:
            return "bits, as distributed"
        return f"{self._kind}, dequantised" if self.dequantize else self._kind

    @property
    def support(self) -> Constraint:
        """The set of possible values of a pixel."""
        if self.levels is None:
            return constraints.real
        if self.levels == "count":
            return constraints.nonnegative_integer
        if self.binarize != "none" or self.levels == 2:
            return constraints.boolean
        return constraints.unit_interval if self.dequantize or self.levels == "unit" else all_levels

    @property
    def can_be_scaled(self) -> bool:
        """Whether one shift and factor of all numbers make sense (`data.scale`)."""
        return self.levels is None

    @property
    def has_missing(self) -> bool:
        """Whether entries may be nan, which are not scored."""
        return False

    @property
    def is_bits(self) -> bool:
        """Whether each pixel is 0 or 1."""
        return self.support is constraints.boolean

    @property
    def is_real(self) -> bool:
        """Whether a pixel may be outside [0, 1]."""
        return self.levels in (None, "count")

    @property
    def examples(self) -> Tensor:
        """Example values of a pixel `(N,)`: the ends of `support`, or numbers far from 0, and some between them."""
        if self.is_bits:
            return torch.tensor([0.0, 1.0])
        if self.support is all_levels:
            return torch.tensor([0, 1, 102, 255]) / 255
        if self.levels == "count":
            return torch.tensor([0.0, 1.0, 7.0, 1e4])
        return torch.tensor([-1e4, -1.0, 0.0, 0.123, 1.0, 1e4] if self.is_real else [0.0, 0.123, 1.0])

    @property
    def ways(self) -> str:
        """What to choose where a likelihood does not score such pixels, for messages."""
        if self.levels == "count":
            return "likelihood=negative_binomial (poisson, zero_inflated_negative_binomial)"
        if self.is_real:
            return "likelihood=gaussian_shared (gaussian, laplace, sigma_vae, sse)"
        if not self.support.is_discrete:
            return "likelihood=gaussian_shared (gaussian, sigma_vae, continuous_bernoulli, laplace, sse)"
        return (
            "data.binarize=dynamic (static, threshold); likelihood=gaussian_shared; or likelihood.allow_grey=true,\n"
            "the usual bce of grey pixels, which is not a probability: the ELBO is then recorded as not a bound"
        )

    def lies_in(self, support: Constraint, image_shape: tuple[int, ...]) -> bool:
        """Whether images `(C, H, W)` of such pixels lie in a set of images: can a distribution with this support score
        them? `Constraint.check` decides, by the examples."""
        images = self.examples.view(-1, *[1] * len(image_shape)).expand(-1, *image_shape)
        return bool(support.check(images).all())

    def check(self, name: str, x: Tensor) -> None:
        """Compares the pixels of the split `name` with `data.levels`.

        Raises:
            ValueError: If they are of another type, or out of their range.
        """
        is_real = not isinstance(self.levels, int)
        given = "null" if self.levels is None else self.levels
        of_counts = self.levels == "count" and x.dtype == torch.uint8
        if x.dtype != (torch.float32 if is_real else torch.uint8) and not of_counts:
            ways = (
                "2 to 256, or count"
                if x.dtype == torch.uint8
                else "unit for real numbers in [0, 1], count for whole numbers from 0 on, null for any others"
            )
            raise ValueError(f"data.levels={given} is for {self._kind}, but the pixels are {x.dtype}: set {ways}")
        if self.levels == 2 and ((x != 0) & (x != 255)).any():
            raise ValueError("data.levels=2 is for bits, bytes that are 0 or 255, but there are other values: set 256")
        if is_real and not x.isfinite().all():
            raise ValueError(f"data.levels={given}: some pixels of {name} are nan or infinite")
        if self.levels == "count" and not (x.min() >= 0 and (x == x.floor()).all()):
            raise ValueError(
                f"data.levels=count is for whole numbers from 0 on, but {name} has others, from {x.min():g} to "
                f"{x.max():g}: set data.levels=null for any real numbers"
            )
        if self.levels == "unit" and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"data.levels=unit, but the pixels of {name} lie in [{x.min():g}, {x.max():g}]: "
                "scale them to [0, 1], or set data.levels=null for any real numbers"
            )

    def fix(self, x: Tensor, generator: torch.Generator, in_training: bool) -> Tensor:
        """Pixels of a split as they are kept in memory, with all bits and noise that are drawn only once."""
        if self.levels == "count":
            return x.float()
        if self.binarize == "threshold":
            return (x > 127).byte() * 255
        if self.binarize == "static" or (self.binarize == "dynamic" and not in_training):
            return bits(x, generator) * 255
        if self.dequantize and not in_training:
            return (x + torch.rand(x.shape, generator=generator)) / 256
        return x

    def view(self, x: Tensor) -> Tensor:
        """Pixels of a batch as the model is given them in training, with new bits or noise."""
        if self.binarize == "dynamic":
            return bits(x).float()
        if self.levels == "count":
            return x.float()
        return (x + torch.rand(x.shape, device=x.device)) / 256 if self.dequantize else floats(x)

    def bits_offset(self, is_mass: bool) -> float:
        """The number to add to the bits of the density, or mass, of a pixel to get bits per dim.

        Raises:
            ValueError: If the density has no meaning in bits; it says why.
        """
        if is_mass:
            return 0.0
        if self.dequantize:
            return 8.0  # x = (level + u) / 256: the density of x is 256 times that of level + u
        if self.support.is_discrete:
            raise ValueError("a density at levels has no bound: data.dequantize=true, or a likelihood of levels")
        raise ValueError("a density of real numbers has no bits: it changes with their unit")

    def like(self, other: "Representation") -> "Representation":
        """These pixels, made bits or given noise in the same way as those of `other`.

        Raises:
            ValueError: If these pixels do not allow that.
        """
        is_made_bits = other.levels == 2 and other.binarize == "none" and self.levels != 2
        return replace(self, binarize="static" if is_made_bits else other.binarize, dequantize=other.dequantize)


def floats(x: Tensor) -> Tensor:
    """Bytes as numbers in [0, 1], floats as they are."""
    return x / 255 if x.dtype == torch.uint8 else x


def bits(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Bits with probability exactly k / 255 for the level k: of 255 equally likely numbers, k are below k.

    On a CPU this is faster than `bernoulli`, and bytes become floats faster than bools.
    """
    numbers = torch.randint(255, x.shape, dtype=torch.uint8, device=x.device, generator=generator)
    return (numbers < x).view(torch.uint8)
