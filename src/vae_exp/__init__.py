"""vae_exp: a bench for variational autoencoders."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from vae_exp.models import VAE
    from vae_exp.runs.trained import Trained

__all__ = ["__version__", "load", "restore"]

__version__ = version("vae_exp")

# Torch is imported when it is needed, so that a wrong command is refused at once.


def load(run: str | Path, checkpoint: str = "best", device: "str | torch.device" = "cpu") -> "VAE":
    """The model of a run folder, in evaluation mode: `encode`, `decode`, `reconstruct`, `sample`, `log_marginal`.

    Arguments:
        run: The folder, as under outputs/.
        checkpoint: Which weights, best or last.
        device: Where the model is put.

    Raises:
        ConfigError: If the folder holds no run, or not these weights.
    """
    return restore(run, checkpoint, accelerator="cpu").model.requires_grad_().to(device)


def restore(
    run: str | Path,
    checkpoint: str = "best",
    split: str = "test",
    seed: int = 0,
    accelerator: str = "auto",
    data_root: str | None = None,
    progress: bool = True,
) -> "Trained":
    """A run read back from its folder, with its model and its data: what the commands work on.

    Arguments:
        run: The folder, as under outputs/.
        checkpoint: Which weights, best or last.
        split: The images that are worked on, test, val or train.
        seed: Of everything random.
        accelerator: auto, cpu or gpu.
        data_root: Where the data are now, if not where the run found them.
        progress: Whether bars are shown.

    Raises:
        ConfigError: If the folder holds no run, a choice is none, or the machine lacks the accelerator.
    """
    from vae_exp.runs import trained

    return trained.restore(run, checkpoint, split, seed, accelerator, data_root, progress)
