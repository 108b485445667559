"""The VAE (arXiv:1312.6114): the graphical model, and the hooks that other models override."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from vae_exp.conditions import Attributes, Classes
from vae_exp.config import NoMeaningError
from vae_exp.distributions import mean_of
from vae_exp.draws import Draw, Stop, sample
from vae_exp.estimators.importance import importance_sampling
from vae_exp.models.module import Module
from vae_exp.objectives import Model, Objective
from vae_exp.parts import Decoder, Likelihood, Part, Posterior, Prior, as_part
from vae_exp.precision import at_least_float32, full_precision

__all__ = ["VAE", "Ability"]

Ability = Literal["density", "prior", "slope"]


class VAE(Module):
    """A variational autoencoder (Kingma & Welling, 2014) put together from its parts.

    Arguments:
        encoder: `(x, c) -> h`, see `vae_exp.encoders`.
        decoder: `(z, c) -> params`, see `vae_exp.decoders`.
        posterior: `h -> q(z | x, c)`, see `vae_exp.posteriors`.
        prior: `c -> p(z | c)`, see `vae_exp.priors`.
        likelihood: `params -> p(x | z, c)`, see `vae_exp.likelihoods`.
        objective: `(model, x, y, step) -> loss, draw`, see `vae_exp.objectives`.
        optimizer: Makes the optimizer from the parameters.
        context_dim: Width of c; 0, for a VAE conditions on nothing.
        corruption: `x -> x`, what the encoder sees in training, see `vae_exp.corruptions`. The clean x is scored.
        condition: What y is in these data, see `vae_exp.conditions`; None: one of `context_dim` classes.

    Attributes:
        bounds: What the ELBO bounds; None if there is no ELBO.
        needs_labels: Whether every image must come with its label.
        infers_labels: Whether it has a classifier `q(y | x)`, see `classify`.
        lacks: What it cannot do, see `has`, with the sentence that says why.

    Example:
        >>> from vae_exp import decoders, encoders, likelihoods, objectives, posteriors, priors
        >>> model = VAE(
        ...     encoders.MLP([1, 8, 8], hidden=[16], out_features=16),
        ...     decoders.MLP(2, [1, 8, 8], hidden=[16]),
        ...     posteriors.DiagonalNormal(16, 2),
        ...     priors.StandardNormal(2),
        ...     likelihoods.Bernoulli(),
        ...     objectives.ELBO(),
        ... )
        >>> x = torch.rand(5, 1, 8, 8).round()
        >>> model.draw(x, num_samples=3).elbo.shape  # nats per image
        torch.Size([5])
        >>> model.sample(4).shape
        torch.Size([4, 1, 8, 8])
    """

    bounds: str | None = "log p(x)"
    needs_labels = False
    infers_labels = False
    lacks: Mapping[Ability, str] = {}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        likelihood: nn.Module,
        objective: Callable[[Model, Tensor, Tensor, Tensor], tuple[Tensor, Draw]],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        context_dim: int = 0,
        corruption: nn.Module | None = None,
        condition: Classes | Attributes | None = None,
    ) -> None:
        super().__init__()
        self.corruption = corruption or nn.Identity()
        self.encoder = as_part(encoder, Part)
        self.decoder = as_part(decoder, Decoder)
        self.posterior = as_part(posterior, Posterior)
        self.prior = as_part(prior, Prior)
        self.likelihood = as_part(likelihood, Likelihood)
        self.objective = as_part(objective, Objective)
        self.optimizer = optimizer
        self.context_dim = context_dim
        self.condition = condition if condition is not None and context_dim else Classes(context_dim)
        self.prior.attach(self._infer)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that may start from the training images."""
        return self.encoder, self.decoder, self.posterior, self.prior, self.likelihood

    @property
    def num_classes(self) -> int:
        """Y, if the model conditions on labels 0 to Y - 1; else 0."""
        return self.condition.num_classes

    def has(self, ability: Ability) -> bool:
        """Whether the model has a `density`, the log p(x) of images; a `prior`, from which z is drawn; a `slope`, the
        gradient of log p(x, z) in all its latents."""
        return ability not in self.lacks

    def require(self, ability: Ability, or_else: str = "") -> None:
        """Refuses what needs an ability that the model lacks.

        Arguments:
            ability: See `has`.
            or_else: A way out beside another model, for the message.

        Raises:
            NoMeaningError: If the model lacks it.
        """
        if not self.has(ability):
            raise NoMeaningError(f"{self.lacks[ability]}{or_else and f', or {or_else}'}")

    def context(self, y: Tensor | None) -> Tensor | None:
        """`(B,) -> (B, context_dim)` or None: what encoder, decoder and prior are given beside x and z."""
        return None

    def example_y(self, num: int) -> Tensor:
        """Labels `(num,)` as the data may give them, all classes in turn; or rows of attributes, `(num, A)`."""
        return self.condition.example(num).to(self.device)

    def label(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """`(B,)`, the labels to condition on: y, with the model's own guess where y does not say; else None."""
        return y if self.context_dim else None

    def classify(self, x: Tensor) -> Tensor:
        """`log q(y | x)`, `(B, C, H, W) -> (B, Y)`, of a model that `infers_labels`.

        Raises:
            NoMeaningError: If the model infers no labels.
        """
        raise NoMeaningError(f"{type(self).__name__} infers no labels: choose model=m2")

    def draw(
        self, x: Tensor, y: Tensor | None = None, num_samples: int = 1, z: Tensor | None = None, stop: Stop = ()
    ) -> Draw:
        """Draws latents for images and scores them: the one place where anything is scored.

        Arguments:
            x: Images, `(B, C, H, W)`.
            y: Labels, `(B,)`.
            num_samples: K, latents per image.
            z: Latents `(K, B, D)` to score instead of fresh ones.
            stop: What is held constant in the gradient: "z", the latents; "q", the posterior's parameters in
                `log_qz`; "p", those of prior and decoder in `log_pz` and `log_px`.
        """
        c = self.context(y)
        q = self._infer(self.corruption(x), c)
        log_qz = None
        with full_precision(x):
            p = self.prior(c)
            if z is None:
                z, log_qz = sample(q, num_samples, stop)
        if "z" in stop:
            z = z.detach()
        return Draw(x, z, q, p, partial(self.decode, c=c), stop, log_qz)

    def decode(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """`(..., B, D), (B, context_dim) ->` `p(x | z, c)`, batch `(..., B)`, event `(C, H, W)`; c is `context(y)`."""
        batch = z.shape[:-1]
        if c is not None:
            c = c.expand(*batch, -1).reshape(-1, c.shape[-1])
        params = self.decoder(z.reshape(-1, z.shape[-1]), c)
        with full_precision(z):
            return self.likelihood(at_least_float32(params).view(*batch, *params.shape[1:]))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """`(B, C, H, W), (B,) ->` `q(z | x, c)`, batch `(B,)`, event `(D,)`."""
        return self._infer(self.corruption(x), self.context(y))

    def code(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """As `encode`, of those latents alone that the decoder reads."""
        return self.encode(x, y)

    def _infer(self, x: Tensor, c: Tensor | None) -> Distribution:
        h = self.encoder(x, c)
        with full_precision(x):
            return self.posterior(at_least_float32(h))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B,) -> (B, C, H, W)`: the mean image at the mean of the posterior, or at a sample of a
        posterior that does not know its mean (a flow)."""
        q = self.encode(x, y)
        mean = mean_of(q)
        return self.decode(q.sample() if mean is None else mean, self.context(y)).mean

    @torch.no_grad()
    def sample(self, num: int, y: Tensor | None = None) -> Tensor:
        """`num` mean images of `p(x | z, c)`, `(num, C, H, W)`, z from the prior; `y (num,)` where c needs labels.

        Raises:
            ValueError: If there are not as many labels as images, or no prior to draw from.
        """
        self.require("prior")
        if y is not None and len(y) != num:
            raise ValueError(f"{len(y)} labels y for {num} samples")
        c = self.context(y)
        p = self.prior(c)
        z = p.sample() if p.batch_shape else p.sample((num,))
        return self.decode(z, c).mean

    @torch.no_grad()
    def log_marginal(self, x: Tensor, y: Tensor | None = None, num_samples: int = 5000) -> Tensor:
        """`log p(x)` (of a CVAE `log p(x | y)`) by importance sampling, nats, `(B, C, H, W), (B,) -> (B,)` float64.

        Memory grows with B, not with K, `num_samples` latents an image (Burda et al., 2016).

        Raises:
            NoMeaningError: If the model has no density.
        """
        self.require("density")
        return importance_sampling(self.draw(x, y), num_samples).log_px
