"""OMNIGLOT (Lake, Salakhutdinov & Tenenbaum, 2015) in 28x28, as Burda, Grosse & Salakhutdinov (2016) used it."""

from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from vae_exp.data.download import FileSet, corrupt, download
from vae_exp.data.mat import arrays
from vae_exp.data.split import Source, Split

URL = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat"
ROWS = {"train": 24_345, "test": 8_070}
ALPHABETS = 50


@final
class Omniglot(Source):
    """Handwritten characters of 50 alphabets in grey levels, labelled by alphabet: 24,345 + 8,070."""

    files = FileSet(
        title="OMNIGLOT",
        names=("chardata.mat",),
        folders=("omniglot", ""),
        offline="the file is datasets/OMNIGLOT/chardata.mat of github.com/yburda/iwae",
    )

    def fetch(self, root: Path) -> None:
        """Download one file."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train" and "test", (1, 28, 28)."""
        [path] = self.files.find(root)
        return read(path)

    def _download(self, scratch: Path) -> Path:
        [name] = self.files.names
        download(URL, scratch / name, read)
        return scratch


def read(path: Path) -> dict[str, Split]:
    """`data` and `testdata` (784, N), levels in [0, 1], an image a column; `target`, `testtarget` (50, N), one-hot."""
    x, y, test_x, test_y = arrays(path, "data", "target", "testdata", "testtarget")
    return {"train": _split(path, "train", x, y), "test": _split(path, "test", test_x, test_y)}


def _split(path: Path, name: str, x: npt.NDArray, y: npt.NDArray) -> Split:
    rows = ROWS[name]
    if x.shape != (784, rows) or y.shape != (ALPHABETS, rows):
        raise corrupt(path, f"{name} images {x.shape} and labels {y.shape}, not (784, {rows}) and (50, {rows})")
    if not ((x >= 0) & (x <= 1)).all():
        raise corrupt(path, f"levels of the {name} images that are not in [0, 1]")
    if not (((y == 0) | (y == 1)).all() and (y.sum(axis=0) == 1).all()):
        raise corrupt(path, f"labels of the {name} images that are not one alphabet each")
    # MATLAB stores an image column by column; the authors' own code transposes, too.
    upright = np.round(255 * x.T).astype(np.uint8).reshape(-1, 28, 28).transpose(0, 2, 1)
    return Split(torch.from_numpy(upright.copy()).unsqueeze(1), torch.from_numpy(y.argmax(axis=0)).long())
