"""Pictures in files, of any size and format. They are cropped, resized, and read all at once or when needed."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.hub import tqdm
from torch.utils.data import DataLoader, Dataset

from vae_exp.config import ConfigError
from vae_exp.data.representation import Representation
from vae_exp.data.split import AnySplit, Split

LARGEST = 500_000_000  # bytes of a file
MOST_PIXELS = 89_478_485  # of a picture, where PIL begins to warn: a byte a colour, they are 270 MB
LONGEST_SIDE = 30_000  # pixels


@final
class InFiles(Dataset[tuple[Tensor, Tensor]]):
    """A split whose pictures stay in their files: indexing reads them, uint8 `(n, C, H, W)`, with their labels.

    Arguments:
        folder: Where the files are.
        names: Their paths below it, an array of strings.
        y: Labels, int64 `(N,)`, -1 for none.
        image_shape: `(C, H, W)` after cropping and resizing.
        in_memory: Whether all are read before training.
        workers: Number of processes that read ahead, at most the number of CPUs; 0 for none.
    """

    is_fixed = False  # the bits and noise would need memory
    device = torch.device("cpu")

    def __init__(
        self,
        folder: Path,
        names: npt.NDArray[np.str_],
        y: Tensor,
        image_shape: Sequence[int],
        in_memory: bool,
        workers: int,
    ) -> None:
        self.folder = folder
        self.names = names
        self.y = y
        self.image_shape = tuple(image_shape)
        self.in_memory = in_memory
        self.workers = min(workers, _cpus())

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the tensor they would be."""
        return (len(self.names), *self.image_shape)

    @property
    def checksum(self) -> str:
        """The checksum of file names, file sizes and labels: reading the pixels would take as long as an epoch."""
        sizes = (f"{name} {(self.folder / name).stat().st_size}" for name in self.names)
        files = sha256("\n".join([str(self.image_shape), *sizes]).encode()).digest()
        return sha256(files + self.y.numpy().tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels(rows), self.y[rows]

    def check(self, name: str, representation: Representation) -> None:
        """Checks only the type of the pixels, because they are not read yet."""
        representation.check(name, torch.empty(0, dtype=torch.uint8))

    def pixels(self, rows: slice | Tensor) -> Tensor:
        """Reads some of them, uint8 `(n, C, H, W)`."""
        chosen = self.names[rows if isinstance(rows, slice) else rows.numpy()]
        return torch.from_numpy(np.stack([self._read(name) for name in chosen]))

    def only(self, chosen: Tensor) -> "InFiles":
        """Those of a mask `(N,)`, unread."""
        names = self.names[chosen.numpy()]
        return InFiles(self.folder, names, self.y[chosen], self.image_shape, self.in_memory, self.workers)

    def with_labels(self, y: Tensor) -> "InFiles":
        """The same files with other labels `(N,)`."""
        return InFiles(self.folder, self.names, y, self.image_shape, self.in_memory, self.workers)

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
        pixels = np.empty(self.shape, np.uint8)
        fill(pixels, lambda i: self._read(self.names[i]), self.folder.name)
        return Split(torch.from_numpy(pixels), self.y)

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

    def _read(self, name: str) -> npt.NDArray[np.uint8]:
        path = self.folder / name
        return decode(content(path), str(path), self.image_shape)


class _Reader(Dataset[Any]):
    """Batches of files, or the error of one that cannot be read: raised in a worker, it would come with a trace."""

    def __init__(self, files: InFiles) -> None:
        self.files = files

    def __getitem__(self, rows: Tensor) -> Any:
        try:
            return self.files[rows]
        except (OSError, ValueError) as error:
            return error


def content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: If it is no file, such as a pipe, which would be waited for, or much too large for a picture.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path} is not a file\n  take it away")
    if about.st_size > LARGEST:
        raise ValueError(f"{path} has {about.st_size:,} bytes, a picture at most {LARGEST:,}\n  take it away")
    return path.read_bytes()


def check_channels(image_shape: Sequence[int]) -> None:
    """Raises ValueError if the image is neither grey nor colour."""
    if len(image_shape) != 3 or image_shape[0] not in (1, 3):
        raise ValueError(f"data.image_shape={list(image_shape)}: pictures are [1, H, W], grey, or [3, H, W], colour")


def decode(content: bytes, name: str, image_shape: Sequence[int], side: int | None = None) -> npt.NDArray[np.uint8]:
    """A picture file -> uint8 (C, H, W).

    If `side` is given, only the (side, side) pixels in the middle are used. The largest central part that has the
    proportions of the image is cropped and resized, bilinear and antialiased.

    Raises:
        ValueError: If it is not a picture, has more than 8 bits in each channel, or unpacks to far more pixels than a
            photograph has; the message names the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    channels, height, width = image_shape
    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
                raise ValueError(
                    f"{image.width} by {image.height} pixels, at most {MOST_PIXELS:,} and {LONGEST_SIDE:,} a side"
                )
            if image.mode.startswith(("I", "F")):  # PIL cuts these off at 255
                raise ValueError(f"{image.mode}, more than 8 bits a channel")
            # Turn it as the camera was held.
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        why = "it has no known format" if content else "it is empty"
        raise ValueError(f"{name} cannot be read as a picture: {why}\n  mend it or take it away") from error
    except Exception as error:  # PIL raises errors of any type for a bad file
        raise ValueError(f"{name} cannot be read as a picture: {error}\n  mend it or take it away") from error
    across, down = (n if side is None else min(n, side) for n in upright.size)
    w = max(1, min(across, round(down * width / height)))
    h = max(1, min(down, round(across * height / width)))
    left, top = round((upright.width - w) / 2), round((upright.height - h) / 2)
    # Crop first, because `resize(box=...)` also uses pixels outside the box.
    resized = upright.crop((left, top, left + w, top + h)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, channels).transpose(2, 0, 1)


def fill(pixels: npt.NDArray[np.uint8], read: Callable[[int], npt.NDArray[np.uint8]], title: str) -> None:
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
