"""Models that are given the label."""

from typing import Any

from torch import Tensor

from vae_exp.models.vae import VAE

__all__ = ["CVAE"]


class CVAE(VAE):
    """A conditional VAE (Sohn et al., 2015): c, the one-hot label or a row of attributes, is given to encoder, decoder
    and prior.

    Its ELBO bounds `log p(x | y)`, which is larger than `log p(x)` by `log p(y | x) - log p(y)`, of a class up to the
    log of the number of classes.
    """

    bounds: str | None = "log p(x|y)"
    needs_labels = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.condition.width != self.context_dim:
            raise ValueError(f"model.context_dim={self.context_dim}, but c has the width {self.condition.width}")
        if self.prior.is_by_class and not self.num_classes:
            raise ValueError(
                f"prior: {type(self.prior).__name__} has parts for each class, and {self.condition.no_classes}. "
                "Ways out: prior=mixture, flow, standard_normal"
            )
        if self.needs_labels:
            self.bounds = f"log p(x|{self.condition.given})"

    def context(self, y: Tensor | None) -> Tensor:
        """`(B,)`, or `(B, A)` of attributes, `-> (B, context_dim)`.

        Raises:
            ValueError: If a label is missing.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the labels y, one for each image")
        try:
            return self.condition(y).to(self.dtype)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__} needs labels y, {error}") from error
