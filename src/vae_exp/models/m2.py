"""The semi-supervised VAE (arXiv:1406.5298)."""

from collections.abc import Mapping
from functools import cached_property
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_exp.draws import Draw, Stop
from vae_exp.models.cvae import CVAE
from vae_exp.models.vae import Ability

__all__ = ["M2"]


class M2(CVAE):
    """A CVAE whose label may be missing: then it is a latent, and `q(y | x)` a classifier (Kingma et al., 2014).

    An image with label y has the bound `elbo(x | y) + log p(y)` of `log p(x, y)`, one without the bound
    `sum_y q(y | x) elbo(x | y) - KL(q(y | x) || p(y))` of `log p(x)`; p(y) is uniform. Validation and test are scored
    by the latter, whatever labels there are; these give `error`, the share of images that q(y | x) gets wrong.

    Arguments:
        classifier: `(x, None) -> (B, F)`, as an encoder; the other arguments are those of `VAE`.
        classifier_features: F.
    """

    bounds: str | None = "log p(x)"
    needs_labels = False
    infers_labels = True
    lacks: Mapping[Ability, str] = {
        "slope": "model=m2 infers the label beside z, and log p(x, y, z) has no slope in a label: choose model=cvae"
    }

    def __init__(self, *args: Any, classifier: nn.Module, classifier_features: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.objective.learns_labels:
            raise ValueError(
                f"model=m2 is trained on objective=semi_supervised, not on {type(self.objective).__name__}: "
                "for another objective choose model=cvae"
            )
        if self.likelihood.fit is not None:
            raise ValueError(
                f"likelihood: {type(self.likelihood).__name__} is fitted to one reconstruction an image, model=m2 has "
                "one for each class: choose likelihood=gaussian_shared"
            )
        self.classifier = classifier
        self.classifier_head = nn.Linear(classifier_features, self.context_dim)

    def classify(self, x: Tensor) -> Tensor:
        """`log q(y | x)`: `(B, C, H, W) -> (B, num_classes)`."""
        return self.classifier_head(self.classifier(self.corruption(x), None)).float().log_softmax(dim=-1)

    def label(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """`(B,)`: y, and `argmax q(y | x)` where y is -1 or None."""
        guess = self.classify(x).argmax(dim=-1)
        return guess if y is None else torch.where(y < 0, guess, y)

    def draw(
        self, x: Tensor, y: Tensor | None = None, num_samples: int = 1, z: Tensor | None = None, stop: Stop = ()
    ) -> "LabelDraw":
        """Scores every image with every class; in evaluation the labels are taken for missing.

        Arguments:
            x: Images, `(B, C, H, W)`.
            y: Labels `(B,)`, -1 where there is none.
            num_samples: K, latents per image and class.
            z: Must be None.
            stop: Must be empty.
        """
        if z is not None or stop:
            raise ValueError("model=m2 draws its own latents, one set a class, and stops no gradient")
        size, num_classes = len(x), self.context_dim
        classes = torch.arange(num_classes, device=x.device).repeat_interleave(size)
        draw = super().draw(x.repeat(num_classes, 1, 1, 1), classes, num_samples)
        labels = y if self.training else None
        result = LabelDraw(x, draw, self.classify(x), labels)
        if y is not None and not self.training:
            result.extras["error"] = (result.log_qy.argmax(dim=-1) != y).float()
        return result


class LabelDraw(Draw):
    """The draws of all classes at each image, reduced by q(y | x) or by the label.

    Arguments:
        x: Images, `(B, C, H, W)`.
        each: The draw of every image with every class, class by class: `Y * B` images.
        log_qy: `log q(y | x)`, `(B, Y)`.
        labels: `(B,)`, -1 where there is none; None for none at all.
    """

    log_qy: Tensor

    def __init__(self, x: Tensor, each: Draw, log_qy: Tensor, labels: Tensor | None) -> None:
        super().__init__(x, each.z, each.q, each.p, each.decode)
        self.each, self.log_qy, self.labels = each, log_qy, labels
        qy = log_qy.exp()
        # KL(q(y | x) || p(y)), or -log p(y), for a uniform p(y).
        self.kl_of_label = (qy * log_qy).sum(dim=-1) + log(log_qy.shape[-1])
        self.weight = qy
        if labels is not None:
            is_labelled = labels >= 0
            given = F.one_hot(labels.clamp(min=0), log_qy.shape[-1]).to(qy.dtype)
            self.weight = torch.where(is_labelled[:, None], given, qy)
            self.kl_of_label = torch.where(is_labelled, log(log_qy.shape[-1]), self.kl_of_label)

    def resample(self, num_samples: int) -> "LabelDraw":
        """K fresh latents an image and class; nothing is inferred again."""
        return LabelDraw(self.x, self.each.resample(num_samples), self.log_qy, self.labels)

    def _over_classes(self, term: Tensor) -> Tensor:
        return (self.weight.T * term.view(self.weight.shape[1], -1)).sum(dim=0)

    @property
    def recon(self) -> Tensor:
        """`-E log p(x | z, y)`, `(B,)`."""
        return self._over_classes(self.each.recon)

    @property
    def kl(self) -> Tensor:
        """`KL(q(z, y | x) || p(z) p(y))`, `(B,)`; with a label `KL(q(z | x, y) || p(z)) - log p(y)`."""
        return self._over_classes(self.each.kl) + self.kl_of_label

    @cached_property
    def log_w(self) -> Tensor:
        """`log sum_y p(y) w(x, y)`, `(K, B)`: the weights of log p(x), the label summed out, be it given or not."""
        num_classes = self.weight.shape[1]
        return self.each.log_w.view(len(self.z), num_classes, -1).logsumexp(dim=1) - log(num_classes)

    @property
    def kl_per_dim(self) -> None:
        """None: the label is a latent, too."""

    @property
    def z_mean(self) -> Tensor | None:
        """`E_q z`, `(B, D)`, over the classes, too; None if the posterior does not know it."""
        means = self.each.z_mean
        return None if means is None else self._mean_over_classes(means)

    @property
    def z_variance(self) -> Tensor | None:
        """`Var_q z`, `(B, D)`, over the classes, too; None if the posterior does not know it."""
        means, variances = self.each.z_mean, self.each.z_variance
        if means is None or variances is None:
            return None
        return self._mean_over_classes(variances + means.square()) - self._mean_over_classes(means).square()

    def mean(self, num_samples: int) -> Tensor:
        """As that of `Draw`, over the classes, too."""
        return self._mean_over_classes(self.each.mean(num_samples))

    def _mean_over_classes(self, means: Tensor) -> Tensor:
        return (self.weight.T[:, :, None] * means.unflatten(0, (self.weight.shape[1], -1))).sum(dim=0)
