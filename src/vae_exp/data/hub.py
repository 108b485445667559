"""A set of pictures of the Hugging Face Hub, or a local folder in its layout, by the library `datasets`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_exp.config import ConfigError
from vae_exp.data.files import fill, memory
from vae_exp.data.listing import split_of
from vae_exp.data.picture import check_channels, decode
from vae_exp.data.representation import Levels
from vae_exp.data.split import Source, Split
from vae_exp.paths import places


@final
class Hub(Source):
    """Pictures in memory, cropped to the middle and resized, with the labels of the set.

    Splits of the set that are train, val or test, also by names such as `validation`, are these; others are left out
    and counted. Nothing of the set is run: it is read from Parquet files or folders of pictures.

    Args:
        name: Of the set, such as `ylecun/mnist`, or a folder; with None `fetch` and `load` raise an error.
        image_shape: (C, H, W), with C 1 for grey and 3 for colour.
        num_classes: Number of classes, or None for no labels.
        subset: The configuration of the set, if it has several.
        pictures: The column of pictures; None for the only one.
        label: The column of labels, whole numbers; None for the only one of classes.
        background: The colour that is seen where a picture is transparent.
        levels: A number: pixels are bytes. `unit` or None: real numbers, also of pictures with 16 bits.
    """

    def __init__(
        self,
        name: str | None,
        image_shape: Sequence[int],
        num_classes: int | None,
        subset: str | None = None,
        pictures: str | None = None,
        label: str | None = None,
        background: str = "black",
        levels: Levels = 256,
    ) -> None:
        check_channels(image_shape, background)
        self.set_name = name
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.subset, self.pictures, self.label = subset, pictures, label
        self.background, self.levels = background, levels

    def fetch(self, root: Path) -> None:
        """Download the set into data.root, unless it is there or a local folder."""
        self._read(root)

    def load(self, root: Path) -> dict[str, Split]:
        """Split "train", and "val" and "test" if the set has them."""
        found = self._read(root)
        splits: dict[str, Any] = {}
        left_out: Counter[str] = Counter()
        for name, rows in found.items():
            split = split_of(str(name)) or ("train" if len(found) == 1 else None)
            if split is None or split in splits:
                left_out[f"in the split {name}"] += len(rows)
            else:
                splits[split] = rows
        if "train" not in splits:
            raise ValueError(
                f"data.source.name={self.set_name}: its splits are {', '.join(map(str, found))}, none is train"
            )
        self.left_out = dict(left_out)
        size = sum(map(len, splits.values())) * math.prod(self.image_shape) * (1 if isinstance(self.levels, int) else 4)
        if size > (most := memory() // 2):
            raise ValueError(
                f"data.source.name={self.set_name} needs {size:,} bytes; half the memory of this machine, {most:,}, is "
                "the limit: choose a smaller data.image_shape"
            )
        return {split: self._split(split, rows) for split, rows in splits.items()}

    def _read(self, root: Path) -> Mapping[Any, Any]:
        """The set by its splits, unread."""
        if self.set_name is None:
            raise FileNotFoundError("data.source.name is not given: data.source.name=OWNER/SET, or a folder")
        try:
            from datasets import DatasetDict, load_dataset
            from datasets.exceptions import DatasetsError
        except ImportError as error:
            raise ConfigError("data=hub needs the library datasets: pip install '.[hub]'") from error
        folder = next((place for place in places(self.set_name, root) if place.is_dir()), None)
        try:
            found = load_dataset(str(folder or self.set_name), self.subset, cache_dir=str(root / "hub"))
        except (OSError, ValueError, DatasetsError) as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ValueError(f"data.source.name={self.set_name} cannot be read: {reason}") from error
        assert isinstance(found, DatasetDict)
        return found

    def _split(self, split: str, rows: Any) -> Split:
        from datasets import ClassLabel, Image

        pictures, classes = (
            [name for name, of in rows.features.items() if isinstance(of, kind)] for kind in (Image, ClassLabel)
        )
        image = self._column("pictures", self.pictures, pictures, rows)
        y = torch.full((len(rows),), -1)
        if self.num_classes is not None:
            y = self._labels(rows.with_format(None)[self._column("label", self.label, classes, rows)])
        files = rows.select_columns([image]).cast_column(image, Image(decode=False))
        dtype = np.uint8 if isinstance(self.levels, int) else np.float32
        pixels: npt.NDArray[Any] = np.empty((len(rows), *self.image_shape), dtype)

        def read(i: int) -> npt.NDArray[Any]:
            file = files[i][image]
            content = file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()
            return decode(
                content, f"{split}, row {i}", self.image_shape, background=self.background, levels=self.levels
            )

        fill(pixels, read, f"{self.set_name}, {split}")
        return Split(torch.from_numpy(pixels), y)

    def _column(self, key: str, given: str | None, found: list[str], rows: Any) -> str:
        """The column that is meant.

        Raises:
            ValueError: If there is none, or several; the message names the key.
        """
        known = found if given is None else [given] if given in rows.features else []
        if len(known) != 1:
            columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in rows.features.items())
            raise ValueError(f"data.source.{key}={'null' if given is None else given}: choose a column, of {columns}")
        return known[0]

    def _labels(self, labels: Any) -> Tensor:
        numbers = np.asarray(list(labels))
        if numbers.dtype.kind not in "iu":
            raise ValueError(f"data.source.label: the labels are {numbers.dtype}, whole numbers are needed")
        return torch.from_numpy(numbers.astype(np.int64))
