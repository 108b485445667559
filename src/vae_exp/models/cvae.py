"""Models that are given the label."""

import torch.nn.functional as F
from torch import Tensor

from vae_exp.models.vae import VAE

__all__ = ["CVAE"]


class CVAE(VAE):
    """A conditional VAE (Sohn et al., 2015): c is the one-hot label, given to encoder, decoder and prior.

    Its ELBO bounds `log p(x | y)`, which is larger than `log p(x)` by `log p(y | x) - log p(y)`, up to the log of
    the number of classes.
    """

    bounds = "log p(x|y)"
    needs_labels = True

    @property
    def num_classes(self) -> int:
        """Y, the width of the one-hot labels."""
        return self.context_dim

    def context(self, y: Tensor | None) -> Tensor:
        """`(B,) -> (B, num_classes)`, one-hot.

        Raises:
            ValueError: If a label is missing.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the labels y, one for each image")
        try:
            return F.one_hot(y, self.context_dim).to(self.dtype)
        except RuntimeError as error:
            needed = f"whole numbers from 0 to {self.context_dim - 1}, one for each image"
            raise ValueError(f"{type(self).__name__} needs labels y, {needed}") from error
