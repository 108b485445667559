"""CIFAR-10 (Krizhevsky, 2009) in the binary version, which needs no pickle."""

import tarfile
from pathlib import Path
from typing import final

import numpy as np
import torch

from vae_exp.data.download import FileSet, check_md5, corrupt, download
from vae_exp.data.split import Source, Split

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of the archive
RECORDS = 10_000  # per file


@final
class CIFAR10(Source):
    """Colour photographs of 10 classes, 50,000 + 10,000."""

    files = FileSet(
        title="CIFAR-10",
        names=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        folders=("cifar-10-batches-bin", ""),
        offline="the files are those of cifar-10-binary.tar.gz, unpacked",
    )

    def fetch(self, root: Path) -> None:
        """Download 170 MB."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Splits "train" and "test", (3, 32, 32)."""
        *train, test = self.files.find(root)
        return {"train": read(*train), "test": read(test)}

    def _download(self, scratch: Path) -> Path:
        archive = scratch / "cifar-10-binary.tar.gz"
        download(URL, archive, lambda path: check_md5(path, MD5))
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        return scratch / "cifar-10-batches-bin"


def read(*paths: Path) -> Split:
    """Records of a label byte and 3,072 pixel bytes, from all files in order."""
    batches = [np.fromfile(path, np.uint8) for path in paths]
    for path, batch in zip(paths, batches, strict=True):
        if batch.size != RECORDS * 3073:
            raise corrupt(path, f"{batch.size} bytes, not {RECORDS} records of 3073")
        if batch[::3073].max() > 9:
            raise corrupt(path, f"label {batch[::3073].max()}, above 9")
    records = torch.from_numpy(np.concatenate(batches)).reshape(-1, 3073)
    return Split(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long())
