"""Priors `c -> p(z | c)`: context `(B, context_dim)` or None to a Distribution, batch `()` or `(B,)`, event `(D,)`.

The interface is that of `zuko.lazy.LazyDistribution`: a yaml file alone makes a zuko flow a prior
(`conf/prior/flow.yaml`). VampPrior: arXiv:1705.07120.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal, register_kl

from vae_exp import distributions
from vae_exp.parts import Prior

__all__ = ["Bernoulli", "Categorical", "Mixture", "NoPrior", "StandardNormal", "Vamp"]


class StandardNormal(Prior):
    """`p(z) = N(z; 0, I)`, whatever the context.

    Arguments:
        latent_dim: D.

    Example:
        >>> p = StandardNormal(latent_dim=2)()
        >>> p.log_prob(torch.zeros(2))  # -log 2 pi
        tensor(-1.8379)
        >>> p.sample((5,)).shape
        torch.Size([5, 2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        # Buffers follow the model to its device; they are constants, so no checkpoint holds them.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, c: Tensor | None = None) -> Independent:
        """`c ->` Independent normal, batch `()`, event `(D,)`."""
        return Independent(_Unit(self.loc, self.scale, validate_args=False), 1, validate_args=False)


class _Unit(Normal):
    """N(0, 1): its KL needs neither its mean nor its scale."""


@register_kl(Normal, _Unit)
def _kl_normal_unit(q: Normal, p: _Unit) -> Tensor:
    return 0.5 * torch.addcmul(q.scale.square() - 1, q.loc, q.loc) - q.scale.log()


class Mixture(Prior):
    """`p(z | c) = sum_k pi_k(c) N(z; mu_k(c), diag(s_k(c)^2))`; a linear function of c is added to the parameters.

    It starts with means drawn from N(0, I), scales of one and equal weights: components that start equal would get
    equal gradients and stay equal.

    Arguments:
        latent_dim: D.
        components: K.
        context_dim: Width of c; 0 for none.
    """

    # A posterior and a component that shrink together lose nothing in the KL, while the gradients of the density grow
    # with 1 / scale^2. The lower bound only keeps them within float32; the exponential lets a scale grow freely.
    min_scale = 0.01

    def __init__(self, latent_dim: int, components: int = 10, context_dim: int = 0) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"prior.components={components}: at least one is needed")
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(torch.randn(components, latent_dim))
        self.raw_scale = nn.Parameter(torch.full((components, latent_dim), math.log(1 - self.min_scale)))
        self.shift = nn.Linear(context_dim, components * (1 + 2 * latent_dim), bias=False) if context_dim else None

    def forward(self, c: Tensor | None = None) -> distributions.Mixture:
        """`c ->` mixture, batch `()`, or `(B,)` if it depends on c, event `(D,)`."""
        logits, mu, raw_scale = self.logits, self.mu, self.raw_scale
        if self.shift is not None:
            k, d = mu.shape
            shifts = self.shift(c).split((k, k * d, k * d), dim=-1)
            logits, mu, raw_scale = (
                parameter + shift.view(-1, *parameter.shape)
                for parameter, shift in zip((logits, mu, raw_scale), shifts, strict=True)
            )
        normals = Normal(mu, self.min_scale + raw_scale.exp(), validate_args=False)
        return distributions.Mixture(logits.log_softmax(dim=-1), Independent(normals, 1, validate_args=False))


class Vamp(Prior):
    """The VampPrior (Tomczak & Welling, 2018): `p(z) = 1/K sum_k q(z | u_k)`, K learned pseudo-inputs `u_k`.

    If c is a one-hot label, each pseudo-input has a class, and `p(z | y)` is the mean of `q(z | u_k, y)` over the
    pseudo-inputs of class y. Pseudo-inputs are the sigmoid of a parameter and so stay in [0, 1], where the data lie. (A
    clamp has no gradient outside, so a pixel that left [0, 1] would never come back.)

    Arguments:
        image_shape: `(C, H, W)`.
        context_dim: Width of c, the number of classes; 0 for none.
        pseudo_inputs: K.
    """

    # The sigmoid is flat near 0 and 1, so images are first scaled into [margin, 1 - margin].
    margin = 0.05
    is_of_posteriors = True
    is_by_class = True

    context: Tensor | None
    weights: Tensor

    def __init__(self, image_shape: Sequence[int], context_dim: int = 0, pseudo_inputs: int = 200) -> None:
        super().__init__()
        if pseudo_inputs < max(context_dim, 1):
            needed = f"one for each of the {context_dim} classes" if context_dim else "one"
            raise ValueError(f"prior.pseudo_inputs={pseudo_inputs}: at least {needed} is needed")
        self.context_dim = context_dim
        self.logits = nn.Parameter(self._squeezed(torch.rand(pseudo_inputs, *image_shape)))
        classes = torch.arange(pseudo_inputs) % max(context_dim, 1)
        of_class = (classes == torch.arange(max(context_dim, 1))[:, None]).float()  # (classes, K)
        # Constants, so checkpoints do not hold them.
        self.register_buffer("context", F.one_hot(classes).float() if context_dim else None, persistent=False)
        self.register_buffer("weights", of_class / of_class.sum(dim=1, keepdim=True), persistent=False)
        self.infer: Callable[[Tensor, Tensor | None], Distribution] | None = None

    @classmethod
    def _squeezed(cls, x: Tensor) -> Tensor:
        return torch.logit(cls.margin + (1 - 2 * cls.margin) * x)

    @property
    def pseudo_inputs(self) -> Tensor:
        """`(K, C, H, W)`, in [0, 1]."""
        return self.logits.sigmoid()

    def attach(self, infer: Callable[[Tensor, Tensor | None], Distribution]) -> None:
        """Takes the posterior of the model, `(x (K, C, H, W), c (K, context_dim) or None) -> q`, batch `(K,)`.

        It must be a bound method: that registers no module here, so the state dict holds the encoder once, and a deep
        copy of the model uses the encoder of the copy (a lambda would keep the old one).
        """
        self.infer = infer

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Replaces the random numbers in the pseudo-inputs by training images.

        Each image is used at most once, with classes for a pseudo-input of its own class. Pseudo-inputs without an
        image stay as they are.

        Arguments:
            batches: Images `(B, C, H, W)` and labels `(B,)`, each image once, in random order.

        Raises:
            ValueError: If pixels lie outside [0, 1].
        """
        classes, k = self.weights.shape
        free = {label: list(range(label, k, classes)) for label in range(classes)}
        for x, y in batches:
            if not ((x >= 0) & (x <= 1)).all():
                raise ValueError("prior=vamp: pseudo-inputs lie in [0, 1], these images do not: choose another prior")
            for image, label in zip(x, y.tolist() if self.context_dim else [0] * len(x), strict=True):
                if free.get(label):  # -1 is no label
                    self.logits[free[label].pop(0)] = self._squeezed(image)
            if not any(free.values()):
                return

    def forward(self, c: Tensor | None = None) -> distributions.Mixture:
        """`c ->` mixture of posteriors, batch `()`, or `(B,)` if c is one-hot labels, event `(D,)`.

        Raises:
            ValueError: If no posterior was attached, or if c is missing although there are classes.
        """
        if self.infer is None:
            raise ValueError("prior: Vamp needs the model's posteriors, call attach first")
        if self.context is None:
            weights = self.weights[0]
        elif c is None:
            raise ValueError(f"prior.context_dim={self.context_dim}: labels are needed, as model=cvae gives them")
        else:
            weights = c @ self.weights
        return distributions.Mixture(weights.log(), self.infer(self.pseudo_inputs, self.context))


class Bernoulli(Prior):
    """D fair coins, whatever the context: a mass on {0, 1}^D, for `posterior=bernoulli`.

    Arguments:
        latent_dim: D.
    """

    logits: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(latent_dim), persistent=False)

    def forward(self, c: Tensor | None = None) -> Independent:
        """`c ->` Independent Bernoulli, batch `()`, event `(D,)`."""
        return Independent(_Half(logits=self.logits, validate_args=False), 1, validate_args=False)


class _Half(TorchBernoulli):
    """A fair coin. Torch's KL of two Bernoullis assigns through masks, for which it must wait for the device."""


@register_kl(TorchBernoulli, _Half)
def _kl_bernoulli_half(q: TorchBernoulli, p: _Half) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(q.logits, q.probs, reduction="none")
    return math.log(2) - entropy


class Categorical(Prior):
    """D / C uniform variables of C categories, one-hot blocks side by side, whatever the context.

    Arguments:
        latent_dim: D.
        categories: C.
    """

    logits: Tensor

    def __init__(self, latent_dim: int, categories: int) -> None:
        super().__init__()
        if categories < 2 or latent_dim % categories:
            raise ValueError(
                f"prior.categories={categories}, latent_dim={latent_dim}: at least 2 categories are needed, "
                "and latent_dim must be a multiple of them"
            )
        self.register_buffer("logits", torch.zeros(latent_dim // categories, categories), persistent=False)

    def forward(self, c: Tensor | None = None) -> distributions.OneHots:
        """`c ->` one-hot blocks, batch `()`, event `(D,)`."""
        return distributions.OneHots(self.logits)


class NoPrior(Prior):
    """No density over z: the prior of an autoencoder."""

    def forward(self, c: Tensor | None = None) -> None:
        """None, whatever the context."""
