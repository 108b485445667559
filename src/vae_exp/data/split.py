"""Images and labels of a split, in memory or in files, and what a source of them is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.conditions import Attributes, Classes
from vae_exp.data.picture import content, decode
from vae_exp.data.representation import Binarize, Levels, Representation

__all__ = ["AnySplit", "Source", "Split", "check_split"]


class AnySplit(Protocol):
    """N images and labels, in the order of the distributor, in memory (`Split`) or in files (`InFiles`)."""

    @property
    def is_fixed(self) -> bool:
        """Whether `fixed` has drawn the random bits and noise of validation and test; if not, each batch draws them."""

    @property
    def y(self) -> Tensor:
        """Labels, int64 `(N,)`, -1 for none; or attributes, float32 `(N, A)`."""

    @property
    def keys(self) -> npt.NDArray[Any] | None:
        """What names each image, `(N,)`: its file, or its row in the file; None if that is its number in the split."""

    @property
    def factors(self) -> Tensor | None:
        """What varies in the images, `(N, F)`, if the source knows it and states it with the images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, C, H, W)`."""

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""

    @property
    def checksum(self) -> str:
        """The first 16 digits of a sha256; other images give another one."""

    def check(self, name: str, representation: Representation) -> None:
        """Raises ValueError if the pixels do not agree with the representation; `name` is the name of the split."""

    def pixels(self, rows: slice | Tensor) -> Tensor:
        """Pixels of some images, as they are stored: `(n, C, H, W)`, uint8 or float32."""

    def only(self, chosen: Tensor) -> "AnySplit":
        """The images of a mask `(N,)`."""

    def with_labels(self, y: Tensor) -> "AnySplit":
        """The same images with other labels `(N,)`."""

    def fixed(self, representation: Representation, generator: torch.Generator, in_training: bool) -> "AnySplit":
        """The split after `Representation.fix`, if there is memory for the result.

        Raises:
            ValueError: If there is no memory for it, but it is needed.
        """

    def on(self, device: torch.device) -> "AnySplit":
        """The split on the device, if it takes less than half of what is free there."""

    def batches(self, rows: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels `(B, C, H, W)`, as they are kept, and labels, on `device`, for each of the numbers `(B,)`."""


@dataclass(frozen=True, eq=False)
class Split:
    """A split in memory; as a pair it is `x, y`."""

    x: Tensor  # uint8 (N, C, H, W), 0..255, or float32 where pixels are real numbers
    y: Tensor  # int64 (N,), -1 where there is no label, or float32 (N, A), attributes
    keys: npt.NDArray[Any] | None = None  # (N,), see AnySplit
    factors: Tensor | None = None  # (N, F), see AnySplit

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.y))

    @property
    def is_fixed(self) -> bool:
        """True, because the result stays in memory."""
        return True

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, C, H, W)`."""
        return tuple(self.x.shape)

    @property
    def device(self) -> torch.device:
        """Where images and labels are."""
        return self.x.device

    @property
    def checksum(self) -> str:
        """The checksum of all pixels and labels, including the bits and noise of evaluation."""
        digest = sha256(self.x.contiguous().numpy().data)
        digest.update(self.y.numpy().tobytes())
        return digest.hexdigest()[:16]

    def check(self, name: str, representation: Representation) -> None:
        """See `Representation.check`."""
        representation.check(name, self.x)

    def pixels(self, rows: slice | Tensor) -> Tensor:
        """`(n, C, H, W)`, as they are kept."""
        return self.x[rows]

    def only(self, chosen: Tensor) -> "Split":
        """The images of a mask `(N,)`."""
        keys = np.arange(len(self.y)) if self.keys is None else self.keys
        factors = None if self.factors is None else self.factors[chosen.cpu()]
        return Split(self.x[chosen], self.y[chosen], keys[chosen.cpu().numpy()], factors)

    def with_labels(self, y: Tensor) -> "Split":
        """The same images with other labels `(N,)`."""
        return replace(self, y=y)

    def fixed(self, representation: Representation, generator: torch.Generator, in_training: bool) -> "Split":
        """See `Representation.fix`."""
        return replace(self, x=representation.fix(self.x, generator, in_training))

    def on(self, device: torch.device) -> "Split":
        """On the device, if it takes less than half of what is free there."""
        if device.type != "cuda":
            return self
        has_room = self.x.nbytes + self.y.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        return replace(self, x=self.x.to(device), y=self.y.to(device)) if has_room else self

    def batches(self, rows: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Gathered one by one."""
        for chosen in rows:
            # On a CPU this is several times as fast as `x[chosen]`.
            yield self.x.index_select(0, chosen).to(device), self.y.index_select(0, chosen).to(device)


def check_split(
    name: str,
    split: AnySplit,
    image_shape: tuple[int, ...],
    condition: Classes | Attributes,
    representation: Representation,
) -> None:
    """Raises ValueError if images, pixels or labels of the split `name` are not what the config says."""
    if split.shape[1:] != image_shape:
        raise ValueError(f"data.image_shape={list(image_shape)}, but the images are {list(split.shape[1:])}")
    split.check(name, representation)
    levels = representation.levels
    if isinstance(split, Split) and isinstance(levels, int) and levels < 256:
        found = int(split.x.flatten().bincount().count_nonzero())
        if found > levels:
            raise ValueError(f"data.levels={levels}, but the pixels of {name} have {found} values: set data.levels=256")
    condition.check(name, split.y)


class Source:
    """One data set. Its constructor touches no file. A class with `fetch` and `load` is one without inheriting from it.

    Attributes:
        name: The set, if the class reads several sets.
        factor_names: The factors of variation of each image, if they are known, see `factors`.
        unordered: The factors whose values have no order.
        left_out: After `load`, by reason the number of files that are there and are not used.
        notes: After `load`, what else a user has to be told of the files.
    """

    name: str = ""
    factor_names: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    left_out: Mapping[str, int] = {}
    notes: Sequence[str] = ()

    def representation(self, levels: Levels, binarize: Binarize, dequantize: bool) -> Representation:
        """What an image is, and the form in which a model is given it; the arguments are those of `Images`."""
        return Representation(levels, binarize, dequantize)

    def factors(self, split: str) -> Tensor:
        """Values of the factors of each image of a split, in its order: whole numbers from 0, `(N, F)`."""
        raise NotImplementedError

    def picture(self, path: Path, image_shape: Sequence[int], levels: Levels) -> npt.NDArray[Any]:
        """A file of the user, `(C, H, W)`, prepared as the pictures of the set: see `vae_exp.data.picture.decode`.

        Raises:
            ValueError: If it cannot be read as a picture.
        """
        return decode(content(path), str(path), image_shape, levels=levels)

    def own(self, path: Path, image_shape: Sequence[int], levels: Levels) -> "Split":
        """All that a file of the user holds, as the files of the set are read; `keys` name it, y is -1 where unknown.

        Raises:
            ValueError: If it cannot be read so.
        """
        x = torch.from_numpy(self.picture(path, image_shape, levels).copy())
        return Split(x[None], torch.full((1,), -1), np.array([str(path)]))

    def fetch(self, root: Path) -> None:
        """Make sure that the files are there, and download missing ones; call it on one process.

        Raises FileNotFoundError if files are missing and cannot be downloaded.
        """
        raise NotImplementedError

    def load(self, root: Path) -> Mapping[str, AnySplit]:
        """Read the split "train" and, only if the distributor defines them, "val" and "test".

        Raises ValueError if a file is corrupt.
        """
        raise NotImplementedError
