"""Whether the codes fall into groups, and whether these are the classes.

Accuracy by best matching: Xie et al. (2016), arXiv:1511.06335. Adjusted Rand index: Hubert & Arabie (1985).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.distributions import Mixture
from vae_exp.metrics.options import at_least
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained

__all__ = ["agreement", "clusters", "matched_accuracy", "responsibilities"]

DRAWS = 16  # samples whose mean replaces a posterior mean that has no formula
STARTS = 5  # of k-means and of the mixture, of which the best is kept


def clusters(trained: Trained, num_clusters: int | None) -> dict[str, Any]:
    """How well groups of the codes agree with the labels, which no method is told.

    The codes are the posterior means of the images of the split that have a label. They are grouped by k-means, by a
    mixture of normals with full covariances, and by the prior's own components if it is a mixture: each code belongs to
    the component that most probably gave it.

    Arguments:
        trained: The run.
        num_clusters: Of k-means and the mixture; None: the number of classes.

    Returns:
        For `kmeans`, `gmm` and `prior`: see `agreement`; `clusters`, their number for k-means and the mixture.

    Raises:
        ValueError: If an option is out of its range.
        ConfigError: If there are fewer images than clusters.
        NoMeaningError: If the data have no labels, or the posterior is given them.
    """
    if num_clusters is not None:
        at_least(2, num_clusters=num_clusters)
    if trained.data.num_classes is None:
        raise NoMeaningError(trained.data.condition.no_classes)
    if trained.model.needs_labels:
        raise NoMeaningError("the posterior is given the label, so the codes are not grouped by it: choose model=vae")
    z, y = _codes(trained)
    number = num_clusters or trained.data.num_classes
    if len(z) < max(2, number):
        raise ConfigError(f"clusters.num_clusters={number}: the {trained.split} split has {len(z)} images with a label")
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    seed, codes = trained.seed % 2**32, on_cpu(z).numpy()
    numbers: dict[str, Any] = {"clusters": number}
    numbers |= agreement("kmeans", KMeans(number, n_init=STARTS, random_state=seed).fit_predict(codes), y)
    numbers |= agreement("gmm", GaussianMixture(number, n_init=STARTS, random_state=seed).fit_predict(codes), y)
    prior = None if trained.model.context_dim else trained.model.prior(None)
    if isinstance(prior, Mixture):
        numbers |= agreement("prior", responsibilities(prior, z).argmax(dim=-1).cpu().numpy(), y)
    return numbers


def responsibilities(prior: Mixture, z: Tensor) -> Tensor:
    """`p(k | z) = w_k q_k(z) / sum_k w_k q_k(z)`: codes `(N, D) -> (N, K)`."""
    return (prior.log_weights + prior.components.log_prob(z[:, None])).softmax(dim=-1)


def agreement(name: str, found: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, float]:
    """How well groups `(N,)` agree with labels `(N,)`, whatever the groups are called.

    Returns:
        `<name>_accuracy`, see `matched_accuracy`; `<name>_ari`, the adjusted Rand index, 0 on average for groups at
        random; `<name>_nmi`, the mutual information over the mean of the two entropies. All are 1 for the same groups.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        f"{name}_accuracy": matched_accuracy(found, y),
        f"{name}_ari": float(adjusted_rand_score(y, found)),
        f"{name}_nmi": float(normalized_mutual_info_score(y, found)),
    }


def matched_accuracy(found: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """The share of images in the group that stands for their class, where each class has at most one group and each
    group one class, chosen so that the share is largest."""
    groups, of_group = np.unique(found, return_inverse=True)
    classes, of_class = np.unique(y, return_inverse=True)
    counts = np.zeros((len(groups), len(classes)), np.int64)
    np.add.at(counts, (of_group, of_class), 1)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(y))


@torch.no_grad()
def _codes(trained: Trained) -> tuple[Tensor, npt.NDArray[Any]]:
    """`E_q z`, `(N, D)`, and labels `(N,)` of the images that have one."""
    z, labels = [], []
    with trained.bar(trained.num_images(), f"{trained.split} codes") as bar:
        for x, y in trained.batches():
            z.append(trained.model.draw(x, y).mean(DRAWS)[y >= 0])
            labels.append(y[y >= 0])
            bar.update(len(x))
    return torch.cat(z), torch.cat(labels).cpu().numpy()
