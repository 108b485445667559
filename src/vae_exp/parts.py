"""What a part of a model may have beside its `forward`, with the defaults of a part that has nothing beside it."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Decoder", "Likelihood", "Part", "Posterior", "Prior", "as_part"]

P = TypeVar("P")


class Part(nn.Module):
    """An encoder, decoder, posterior, prior or likelihood.

    Attributes:
        reads_missing: Of an encoder, whether entries of x may be nan.
    """

    reads_missing: bool = False

    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Called once before the first step of a new run, not of a resumed one nor with `init_from`.

        Arguments:
            batches: All training images in random order, x `(B, C, H, W)` and y `(B,)`, the same on every process.
                They are read only if the part goes through them.

        Raises:
            ValueError: If the part cannot start from these images.
        """


class Decoder(Part):
    """`(z, c) -> params`, see `vae_exp.decoders`.

    Attributes:
        output_bias: What the bias of its last layer starts from, `default`, `mean` or `mean_logit`.
    """

    output_bias: str = "default"


class Posterior(Part):
    """`h -> q(z | x, c)`, see `vae_exp.posteriors`.

    Attributes:
        sizes: Widths of the layers of z, from z_1 on, if q is a chain of them; None for one layer.
    """

    sizes: list[int] | None = None


class Prior(Part):
    """`c -> p(z | c)`, see `vae_exp.priors`.

    Attributes:
        is_of_posteriors: Whether its density also depends on the parameters of encoder and posterior, which it gets by
            `attach`. An objective that trains p and q apart refuses such a prior.
        is_by_class: Whether c, if there is one, must be a one-hot label: it has parts for each class.
    """

    is_of_posteriors: bool = False
    is_by_class: bool = False

    def attach(self, infer: Callable[[Tensor, Tensor | None], Distribution]) -> None:
        """Called once, by the model, for a prior that is made of posteriors.

        Arguments:
            infer: `(x (B, C, H, W), c (B, context_dim) or None) -> q(z | x, c)`, batch `(B,)`.
        """


class Likelihood(Part):
    """`params -> p(x | z, c)`, see `vae_exp.likelihoods`.

    Attributes:
        params_per_pixel: P, the numbers that it reads for each pixel.
        allow_grey: Whether it scores grey values too, although nothing sums to one over them.
        given: What of x it conditions on beside z, in a word; empty for nothing.
        mean: `sigmoid` if the mean of a pixel is a sigmoid of what the decoder gives, and `identity` otherwise.
        fit: `(pairs, reduce) -> None`, called before each validation, with pairs of p(x | z), batch `(K, B)`, and
            x `(B, C, H, W)` of all training images, and with what sums a tensor over the processes. None for a
            likelihood that is not fitted.
    """

    params_per_pixel: int = 1
    allow_grey: bool = False
    given: str = ""
    mean: Literal["identity", "sigmoid"] = "identity"
    fit: Callable[[Iterable[tuple[Distribution, Tensor]], Callable[[Tensor], Tensor]], None] | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether it can score: nothing is validated or tested before."""
        return True


def as_part(given: object, kind: type[P]) -> P:
    """An object of any class as a part: what it does not have, it gets from `kind`.

    So a plain `nn.Module`, a flow of zuko's or an objective that is a plain function need not inherit from `kind`.
    """
    default = kind()
    for name in set(dir(kind)) - set(dir(nn.Module)):
        if not hasattr(given, name):
            setattr(given, name, getattr(default, name))
    return given  # type: ignore[return-value]
