"""How well codes separate known factors: the scores of the disentanglement literature.

Codes are `(N, D)` real numbers and factors `(N, F)` whole numbers, one row for each image. Each factor needs at least
two different values in the rows. A latent may be constant: it then contains no information. If a paper leaves a choice
open, we follow Locatello et al. (2019, arXiv:1811.12359), unless stated otherwise.

MIG: arXiv:1802.04942. SAP: arXiv:1711.00848. Modularity: arXiv:1802.05312. FactorVAE score: arXiv:1802.05983.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

__all__ = [
    "beta_vae_score",
    "completeness",
    "disentanglement",
    "entropy",
    "factor_vae_score",
    "has_groups",
    "importance",
    "mig",
    "modularity",
    "mutual_information",
    "sap",
]

Array = npt.NDArray[Any]

BINS = 20
TREES = 50
ENOUGH = 10  # images that must share a value, so that groups can be drawn from them
GROUP = 64  # images, or pairs, in a group
VOTES = 500  # groups for each factor to learn from, and the same number to score


def mutual_information(codes: Array, factors: Array) -> Array:
    """`I(z_d; v_k)`, `(D, F)`, nats, by counting: codes are put into 20 bins of equal width over their range.

    With N images it is too large by about (bins - 1) (values - 1) / 2 N (Miller, 1955), the value for shuffled factors.
    """
    edges = [np.linspace(z.min(), z.max(), BINS + 1)[1:-1] for z in codes.T]
    bins = [np.digitize(z, e) for z, e in zip(codes.T, edges, strict=True)]
    return np.array([[mutual_info_score(v, b) for v in factors.T] for b in bins])


def entropy(factors: Array) -> Array:
    """`H(v_k)`, `(F,)`, nats."""
    return np.array([mutual_info_score(v, v) for v in factors.T])


def mig(information: Array, entropies: Array) -> float:
    """Mutual information gap (Chen et al., 2018): the mean over factors of `(I(z_1st; v) - I(z_2nd; v)) / H(v)`.

    Arguments:
        information: `I(z_d; v_k)`, `(D, F)`. The paper computes it from samples of q(z | x).
        entropies: `H(v_k)`, `(F,)`.
    """
    return float((_gap(information) / entropies).mean())


def modularity(information: Array) -> float:
    """Whether each latent has information about only one factor (Ridgeway & Mozer, 2018); the mean over latents of

    `1 - sum_{k != k*} I(z; v_k)^2 / ((F - 1) I(z; v_k*)^2)`, where k* is the factor with the most information. Latents
    without any information, for which this is 0 / 0, are left out (Locatello et al., 2019, give them 0). If no latent
    has any information, the result is 0.

    Arguments:
        information: `I(z_d; v_k)`, `(D, F)`.
    """
    squares = information**2
    best = squares.max(axis=1)
    others = (squares.sum(axis=1) - best)[best > 0] / (squares.shape[1] - 1)
    return float((1 - others / best[best > 0]).mean()) if len(others) else 0.0


def sap(codes: Array, factors: Array, is_ordered: Sequence[bool]) -> float:
    """Separated attribute predictability (Kumar et al., 2018).

    The mean over factors of the gap between the scores of the two latents that predict the factor best. An ordered
    factor is predicted by a line and scored by R^2 (also a rotation, although its values form a circle). A factor
    without order is predicted by thresholds on the latent (those of a decision tree), one fewer than the factor has
    values, and scored by the balanced accuracy on the same images. There, chance is 1 / values, so the gap is
    1 - 1 / values if the codes are the factors themselves.
    """
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    z, v = _standard(codes), _standard(factors)
    for k, ordered in enumerate(is_ordered):
        if ordered:
            scores[:, k] = (z.T @ v[:, k] / len(z)) ** 2
            continue
        tree = DecisionTreeClassifier(
            max_leaf_nodes=len(np.unique(factors[:, k])), class_weight="balanced", random_state=0
        )
        for d in range(len(scores)):
            predicted = tree.fit(z[:, [d]], factors[:, k]).predict(z[:, [d]])
            scores[d, k] = balanced_accuracy_score(factors[:, k], predicted)
    return float(_gap(scores).mean())


def importance(codes: Array, factors: Array, is_ordered: Sequence[bool], seed: int) -> tuple[Array, Array]:
    """The importances from which DCI is computed (Eastwood & Williams, 2018), with a random forest for each factor.

    The forest is a regression, as in the paper; for a factor without order it is a classification. (Locatello et al.,
    2019, classify every factor with boosted trees. 32 positions are then 32 classes, and the trees find little in codes
    that are linear in the position.) A node of a tree may split on any latent: with a random choice of latents, those
    without information would also get a share.

    Returns:
        `(D, F)`, the share of each latent in what the forest learned about a factor, columns with sum 1 (0 if all codes
        are constant); `(F,)`, the informativeness for images that the trees have not seen (out of bag): R^2 (at least
        0), or the accuracy.
    """
    forests = [
        (RandomForestRegressor if ordered else RandomForestClassifier)(
            TREES, max_features=None, oob_score=True, random_state=seed % 2**32
        ).fit(codes, v)
        for v, ordered in zip(factors.T, is_ordered, strict=True)
    ]
    scores = np.array([forest.oob_score_ for forest in forests])
    return np.stack([forest.feature_importances_ for forest in forests], axis=1), scores.clip(0)


def disentanglement(importances: Array) -> float:
    """The D of DCI: whether a latent matters to only one factor. `(D, F) ->` mean over latents by their importance."""
    return _focus(importances)


def completeness(importances: Array) -> float:
    """The C of DCI: whether only one latent matters to a factor. `(D, F) ->` mean over factors."""
    return _focus(importances.T)


def has_groups(values: Array) -> bool:
    """Whether at least two values of a factor `(N,)` have ten images each, so that groups can be drawn."""
    return len(_Groups(values).count) >= 2


def factor_vae_score(codes: Array, factors: Array, seed: int) -> float:
    """Kim & Mnih (2018): how often the latent that varies least shows which factor was constant.

    In each group of 64 images that share the value of a factor, the latent with the smallest variance, relative to its
    variance over all images, votes. From 500 groups for each factor, each latent learns the factor for which it votes
    most often. The score is how often that is right in 500 other groups. Images are drawn with replacement from the
    given images, among values that at least ten images have; in the paper they are rendered. Constant latents do not
    vote. Chance: 1 / F.
    """
    rng = np.random.default_rng(seed)
    z = _standard(codes)[:, np.ptp(codes, axis=0) > 0]
    num_latents, num_factors = z.shape[1], factors.shape[1]
    if num_latents == 0:
        return 1 / num_factors
    votes = np.zeros((2, num_latents, num_factors))
    for k, v in enumerate(factors.T):
        images = _Groups(v).sample(rng, 2 * VOTES)
        least = z[images].var(axis=1).argmin(axis=1).reshape(2, VOTES)
        votes[:, :, k] = [np.bincount(each, minlength=num_latents) for each in least]
    learnt, scored = votes
    return float(scored[np.arange(num_latents), learnt.argmax(axis=1)].sum() / scored.sum())


def beta_vae_score(codes: Array, factors: Array, seed: int) -> float:
    """Higgins et al. (2017): how well a linear classifier finds the factor that pairs of images share.

    Its inputs are means of `|z - z'|` over 64 pairs of images, where the two images of a pair have the same value of
    the factor. It learns from 500 such means for each factor; its accuracy on 500 others is the score. Images are drawn
    as for `factor_vae_score`. Codes are divided by their standard deviation, which affects only the penalty of the
    classifier. Chance: 1 / F.
    """
    rng = np.random.default_rng(seed)
    z = _standard(codes)
    differences = [
        np.abs(z[one] - z[other]).mean(axis=1)
        for one, other in (_Groups(v).sample_pairs(rng, 2 * VOTES) for v in factors.T)
    ]
    answers = np.repeat(np.arange(factors.shape[1]), VOTES)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(np.concatenate([each[:VOTES] for each in differences]), answers)
    return float(classifier.score(np.concatenate([each[VOTES:] for each in differences]), answers))


class _Groups:
    """The images that share a value of one factor, for values with at least ten images."""

    def __init__(self, values: Array) -> None:
        self.order = np.argsort(values, kind="stable")
        _, first, count = np.unique(values[self.order], return_index=True, return_counts=True)
        self.first, self.count = first[count >= ENOUGH], count[count >= ENOUGH]

    def sample(self, rng: np.random.Generator, num: int) -> Array:
        """`(num, 64)` images. Those of a group (a row) share one value; each value is equally likely."""
        value = rng.integers(len(self.count), size=(num, 1))
        return self.order[self.first[value] + rng.integers(self.count[value], size=(num, GROUP))]

    def sample_pairs(self, rng: np.random.Generator, num: int) -> Iterator[Array]:
        """`(num, 64)` images and their `(num, 64)` partners, which have the same values."""
        value = rng.integers(len(self.count), size=(num, GROUP))
        one = rng.integers(self.count[value])
        # An image is never its own partner. Such pairs would be more frequent for a factor with few images for each
        # value, and would so reveal the factor.
        other = (one + 1 + rng.integers(self.count[value] - 1)) % self.count[value]
        return (self.order[self.first[value] + each] for each in (one, other))


def _standard(columns: Array) -> Array:
    """Columns with mean 0 and variance 1; constant columns become 0."""
    scale = np.where(np.ptp(columns, axis=0) > 0, columns.std(axis=0, dtype=np.float64), np.inf)
    return (columns - columns.mean(axis=0, dtype=np.float64)) / scale


def _gap(scores: Array) -> Array:
    """`(D, F) -> (F,)`: the best score minus the second best, which is 0 if there is only one latent."""
    second, best = np.sort(np.vstack([scores, np.zeros_like(scores[:1])]), axis=0)[-2:]
    return best - second


def _focus(shares: Array) -> float:
    """`1 - entropy / log(columns)` of the normalised rows, averaged with their sums as weights; 0 if all are 0."""
    sums = shares.sum(axis=1, keepdims=True)
    rows = shares / np.where(sums > 0, sums, 1)
    # With one column the entropy is 0, so the divisor does not matter.
    focus = 1 - entr(rows).sum(axis=1) / np.log(max(shares.shape[1], 2))
    return float(focus.clip(0) @ sums[:, 0] / sums.sum()) if sums.sum() > 0 else 0.0
