"""Street View House Numbers (Netzer et al., 2011), the cropped digits."""

from pathlib import Path
from typing import final

import numpy as np
import torch

from vae_exp.data.download import FileSet, check_md5, corrupt, download
from vae_exp.data.mat import arrays
from vae_exp.data.split import Source, Split

URL = "http://ufldl.stanford.edu/housenumbers/"
ROWS = {"train_32x32.mat": 73_257, "test_32x32.mat": 26_032}
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


@final
class SVHN(Source):
    """Colour photographs of digits in their surroundings, 73,257 + 26,032; without the "extra" set."""

    files = FileSet(title="SVHN", names=tuple(ROWS), folders=("svhn", ""))

    def fetch(self, root: Path) -> None:
        """Download 250 MB."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train" and "test", (3, 32, 32)."""
        train, test = self.files.find(root)
        return {"train": read(train), "test": read(test)}

    def _download(self, scratch: Path) -> Path:
        for name in self.files.names:
            download(URL + name, scratch / name, lambda path: check_md5(path, MD5[path.name]))
        return scratch


def read(path: Path) -> Split:
    """MATLAB's `X` (32, 32, 3, N) and `y` (N, 1), where the digit 0 has the label 10."""
    x, y = arrays(path, "X", "y")
    rows = ROWS[path.name]
    if x.shape != (32, 32, 3, rows) or x.dtype != "uint8" or y.shape != (rows, 1):
        raise corrupt(path, f"X is {x.dtype} {x.shape} and y {y.shape}, not uint8 (32, 32, 3, {rows}) and ({rows}, 1)")
    if not ((y >= 1) & (y <= 10)).all():
        raise corrupt(path, f"labels {y.min()} to {y.max()}, not 1 to 10")
    pixels = np.ascontiguousarray(x.transpose(3, 2, 0, 1))
    return Split(torch.from_numpy(pixels), torch.from_numpy(y[:, 0].astype(np.int64) % 10))
