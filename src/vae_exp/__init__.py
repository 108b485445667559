"""vae_exp: a bench for variational autoencoders."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from vae_exp.models import VAE

__all__ = ["load"]


def load(run: str | Path, checkpoint: str = "best", device: "str | torch.device" = "cpu") -> "VAE":
    """The model of a run folder, in evaluation mode: `encode`, `decode`, `reconstruct`, `sample`, `log_marginal`.

    Arguments:
        run: The folder, as under outputs/.
        checkpoint: Which weights, best or last.
        device: Where the model is put.

    Raises:
        ConfigError: If the folder holds no run, or not these weights.
    """
    from vae_exp.trained import load  # torch is imported when it is needed: a wrong command is told so at once

    return load(run, checkpoint, device)
