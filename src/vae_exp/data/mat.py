"""Arrays in a MATLAB file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_exp.data.download import corrupt


def arrays(path: Path, *names: str) -> list[npt.NDArray]:
    """The arrays of these names; ValueError if the file lacks one of them."""
    from scipy.io import loadmat

    with path.open("rb") as file:
        try:
            found = loadmat(file, variable_names=names)
            return [np.asarray(found[name]) for name in names]
        except Exception as error:  # scipy's parser raises errors of any type
            reason = f"not a MATLAB file with {', '.join(names)} ({type(error).__name__})"
            raise corrupt(path, reason) from error
