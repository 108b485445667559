"""Pictures in files, of any size and format. They are cropped, resized, and read all at once or when needed."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.hub import tqdm
from torch.utils.data import DataLoader, Dataset

from vae_exp.config import ConfigError
from vae_exp.data.picture import content, decode
from vae_exp.data.representation import Levels, Representation
from vae_exp.data.split import AnySplit, Split


@final
class InFiles(Dataset[tuple[Tensor, Tensor]]):
    """A split whose pictures stay in their files: indexing reads them, `(n, C, H, W)`, with their labels.

    Pixels are uint8, or float32 where `levels` is no number.

    Arguments:
        folder: Where the files are.
        names: Their paths below it, an array of strings.
        y: Labels, int64 `(N,)`, -1 for none; or attributes, float32 `(N, A)`.
        image_shape: `(C, H, W)` after cropping and resizing.
        in_memory: Whether all are read before training.
        workers: Number of processes that read ahead, at most the number of CPUs; 0 for none.
        background: The colour that is seen where a picture is transparent.
        levels: See `Representation`.
    """

    is_fixed = False  # the bits and noise would need memory
    device = torch.device("cpu")
    factors: Tensor | None = None  # those of a folder are its attributes

    def __init__(
        self,
        folder: Path,
        names: npt.NDArray[np.str_],
        y: Tensor,
        image_shape: Sequence[int],
        in_memory: bool,
        workers: int,
        background: str = "black",
        levels: Levels = 256,
    ) -> None:
        self.folder = folder
        self.names = names
        self.y = y
        self.image_shape = tuple(image_shape)
        self.in_memory = in_memory
        self.workers = min(workers, _cpus())
        self.background = background
        self.levels = levels
        self._dtype = np.dtype(np.uint8 if isinstance(levels, int) else np.float32)

    @property
    def keys(self) -> npt.NDArray[np.str_]:
        """The names of the files."""
        return self.names

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor they would be."""
        return (len(self.names), *self.image_shape)

    @property
    def checksum(self) -> str:
        """The checksum of file names, file sizes and labels: reading the pixels would take as long as an epoch."""
        sizes = (f"{name} {(self.folder / name).stat().st_size}" for name in self.names)
        form = [] if (self.background, self.levels) == ("black", 256) else [f"{self.background} {self.levels}"]
        files = sha256("\n".join([str(self.image_shape), *form, *sizes]).encode(errors="surrogateescape")).digest()
        return sha256(files + self.y.numpy().tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels(rows), self.y[rows]

    def check(self, name: str, representation: Representation) -> None:
        """Checks only the type of the pixels, because they are not read yet."""
        representation.check(name, torch.from_numpy(np.zeros(1, self._dtype)))

    def pixels(self, rows: slice | Tensor) -> Tensor:
        """Reads some of them, `(n, C, H, W)`."""
        chosen = self.names[rows if isinstance(rows, slice) else rows.numpy()]
        return torch.from_numpy(np.stack([self._read(name) for name in chosen]))

    def only(self, chosen: Tensor) -> "InFiles":
        """Those of a mask `(N,)`, unread."""
        part = copy(self)
        part.names, part.y = self.names[chosen.numpy()], self.y[chosen]
        return part

    def with_labels(self, y: Tensor) -> "InFiles":
        """The same files with other labels `(N,)`."""
        same = copy(self)
        same.y = y
        return same

    def fixed(self, representation: Representation, generator: torch.Generator, in_training: bool) -> AnySplit:
        """All of them in memory, if `in_memory`; else the files, whose bits and noise are drawn batch by batch.

        Raises:
            ValueError: If bits must be drawn once and kept, but the pictures are not in memory.
        """
        if self.in_memory:
            return self.read().fixed(representation, generator, in_training)
        if representation.binarize in ("static", "threshold"):
            raise ValueError(
                f"data.binarize={representation.binarize} needs all pictures in memory, but these are read during "
                "training: set data.source.in_memory=true, or data.binarize=dynamic"
            )
        return self

    def on(self, device: torch.device) -> "InFiles":
        """Itself: files stay where they are."""
        return self

    def read(self) -> Split:
        """All of them, in memory."""
        pixels = np.empty(self.shape, self._dtype)
        fill(pixels, lambda i: self._read(self.names[i]), self.folder.name)
        return Split(torch.from_numpy(pixels), self.y, self.names)

    def batches(self, rows: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches on `device`, read ahead, in the order of `rows`.

        Raises:
            ConfigError: If a file cannot be read.
        """
        loader: DataLoader[Any] = DataLoader(
            _Reader(self),
            batch_size=None,  # an index is a whole batch
            sampler=rows,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # for a seed that nothing uses; spares the run's generator
        )
        for batch in loader:
            if isinstance(batch, Exception):
                raise ConfigError(str(batch)) from batch
            x, y = batch
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    def _read(self, name: str) -> npt.NDArray[Any]:
        path = self.folder / name
        return decode(content(path), str(path), self.image_shape, background=self.background, levels=self.levels)


class _Reader(Dataset[Any]):
    """Batches of files, or the error of one that cannot be read: raised in a worker, it would come with a trace."""

    def __init__(self, files: InFiles) -> None:
        self.files = files

    def __getitem__(self, rows: Tensor) -> Any:
        try:
            return self.files[rows]
        except (OSError, ValueError) as error:
            return error


def fill(pixels: npt.NDArray[Any], read: Callable[[int], npt.NDArray[Any]], title: str) -> None:
    """pixels[i] = read(i) for all i, in threads (PIL decodes without Python's lock) and with a progress bar."""
    with ThreadPoolExecutor() as pool, tqdm(total=len(pixels), desc=f"reading {title}", disable=None) as bar:
        for start in range(0, len(pixels), 1000):
            rows = range(start, min(start + 1000, len(pixels)))
            for i, one in zip(rows, pool.map(read, rows), strict=True):
                pixels[i] = one
                bar.update(1)


def _cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory of this machine, free or not, so that a run decides the same at each start."""
    if not hasattr(os, "sysconf"):  # Windows does not say it so
        return 2**33
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
