"""Arrays in a MATLAB file."""

import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_exp.data.download import corrupt

# A few changed bytes make scipy's reader end the whole process, so that another one runs it.
READER = """
import sys, numpy, scipy.io
path, *names = sys.argv[1:]
found = scipy.io.loadmat(path, variable_names=names)
numpy.savez(sys.stdout.buffer, **{name: found[name] for name in names})
"""
LONGEST = 600  # seconds


def arrays(path: Path, *names: str) -> list[npt.NDArray]:
    """The arrays of these names; ValueError if the file lacks one of them."""
    try:
        read = [sys.executable, "-P", "-c", READER, str(path), *names]
        done = subprocess.run(read, capture_output=True, timeout=LONGEST, check=True)  # noqa: S603
        with np.load(BytesIO(done.stdout), allow_pickle=False) as file:
            return [file[name] for name in names]
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines() or ["no word"]
        why = signal.Signals(-error.returncode).name if error.returncode < 0 else lines[-1].partition(":")[0]
        raise corrupt(path, f"not a MATLAB file with {', '.join(names)} ({why})") from error
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise corrupt(path, f"not a MATLAB file with {', '.join(names)} ({type(error).__name__})") from error
