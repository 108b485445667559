"""vae_exp: a bench for variational autoencoders."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from vae_exp.models import VAE
    from vae_exp.run import Run, compose, train
    from vae_exp.runs.trained import restore

__all__ = ["Run", "__version__", "compose", "load", "restore", "train"]

__version__ = version("vae_exp")

# Threads of torch's that wait for each other sleep: by default they spin, which is slow on a machine that is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Torch is imported when it is needed, so that a wrong command is refused at once.


def load(
    run: str | Path,
    checkpoint: str = "best",
    device: "str | torch.device" = "cpu",
    allow: "str | Sequence[str] | None" = None,
) -> "VAE":
    """The model of a run folder, in evaluation mode: `encode`, `decode`, `reconstruct`, `sample`, `log_marginal`.

    Arguments:
        run: The folder, as under outputs/.
        checkpoint: Which weights: best, last, or step_N of `callbacks.snapshots`.
        device: Where the model is put.
        allow: Your own modules, or classes, that the config of the run may name: `my_parts`.

    Raises:
        ConfigError: If the folder holds no run, or not these weights.
    """
    from vae_exp.runs.trained import restore

    return restore(run, checkpoint, accelerator="cpu", allow=allow).model.requires_grad_().to(device)


def __getattr__(name: str) -> Any:
    if name == "restore":
        from vae_exp.runs.trained import restore

        return restore
    if name in ("Run", "compose", "train"):
        from vae_exp import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
