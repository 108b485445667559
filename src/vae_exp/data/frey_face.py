"""Frey faces: Brendan Frey in 1,965 frames of a video, from Sam Roweis's page."""

from pathlib import Path
from typing import final

import torch
from torch import Tensor

from vae_exp.data.download import FileSet, corrupt, download
from vae_exp.data.mat import arrays
from vae_exp.data.split import Source, Split

URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
SHAPE = (560, 1965)  # pixels, frames


@final
class FreyFace(Source):
    """Grey images in the order of the video, without labels and without an official test split."""

    files = FileSet(title="Frey faces", names=("frey_rawface.mat",), folders=("frey_face", ""))

    def fetch(self, root: Path) -> None:
        """Download 1 MB."""
        self.files.fetch(root, self._download)

    def load(self, root: Path) -> dict[str, Split]:
        """Split "train", (1, 28, 20)."""
        [path] = self.files.find(root)
        x = read(path)
        return {"train": Split(x, torch.full((len(x),), -1))}

    def _download(self, scratch: Path) -> Path:
        [name] = self.files.names
        download(URL, scratch / name, read)
        return scratch


def read(path: Path) -> Tensor:
    """MATLAB's array `ff` (560, N), an image per column -> (N, 1, 28, 20)."""
    [faces] = arrays(path, "ff")
    if faces.shape != SHAPE or faces.dtype != "uint8":
        raise corrupt(path, f"ff is {faces.dtype} {faces.shape}, not uint8 {SHAPE}")
    return torch.from_numpy(faces.T.copy()).reshape(-1, 1, 28, 20)
