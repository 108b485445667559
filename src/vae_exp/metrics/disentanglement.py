"""How codes keep known factors apart: the scores of the disentanglement literature.

Codes are `(N, D)` real numbers, factors `(N, F)` whole numbers, a row an image; all values of a factor that are in the
rows count, two at least. A latent may be constant: it tells nothing and breaks nothing. Where others (Locatello et al.,
2019, arXiv:1811.12359) take a choice that a paper leaves open, so do we, unless said otherwise.

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
ENOUGH = 10  # images that share a value, for groups of them to be drawn
GROUP = 64  # images, or pairs, in a group
VOTES = 500  # groups a factor to learn from, and as many again to score


def mutual_information(codes: Array, factors: Array) -> Array:
    """`I(z_d; v_k)`, `(D, F)`, nats, by counting: codes are in 20 bins of equal width from the least to the greatest.

    Of N images it is too large by about (bins - 1) (values - 1) / 2 N (Miller, 1955): what shuffled factors give.
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
        information: `I(z_d; v_k)`, `(D, F)`. Theirs is of samples of q(z | x).
        entropies: `H(v_k)`, `(F,)`.
    """
    return float((_gap(information) / entropies).mean())


def modularity(information: Array) -> float:
    """Whether a latent tells of one factor alone (Ridgeway & Mozer, 2018), a mean over latents.

    `1 - sum_{k != k*} I(z; v_k)^2 / ((F - 1) I(z; v_k*)^2)`, k* the factor it tells most of. Latents that tell of none,
    for which this is 0 / 0, are left out (Locatello et al., 2019, give them 0); 0 if there are no others.

    Arguments:
        information: `I(z_d; v_k)`, `(D, F)`.
    """
    squares = information**2
    best = squares.max(axis=1)
    others = (squares.sum(axis=1) - best)[best > 0] / (squares.shape[1] - 1)
    return float((1 - others / best[best > 0]).mean()) if len(others) else 0.0


def sap(codes: Array, factors: Array, is_ordered: Sequence[bool]) -> float:
    """Separated attribute predictability (Kumar et al., 2018).

    The mean over factors of the gap between the two latents that best predict it. An ordered factor is predicted by a
    line and scored by R^2 (a rotation too, though its values form a circle); one without order by thresholds on the
    latent, one fewer than it has values (those of a decision tree), and scored by the balanced accuracy on the same
    images. Chance is 1 / values there, so that codes that are the factors have a gap of 1 - 1 / values.
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
    """What DCI is computed from (Eastwood & Williams, 2018): a random forest for each factor.

    As theirs it is a regression, of a factor without order a classification. (Locatello et al., 2019, classify all with
    boosted trees: 32 positions are then 32 classes, and trees find little in a code that is a line in the position.)
    A node of a tree may split any latent: were it some at random, latents that tell nothing would get a share.

    Returns:
        `(D, F)`, how much of what a forest learnt of a factor it owes to a latent, columns of sum 1 (0 if all codes are
        constant); `(F,)`, the informativeness: R^2, 0 at least, or accuracy for images that trees have not seen (out
        of bag).
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
    """Of DCI: whether a latent matters to one factor alone. `(D, F) ->` mean over latents by how much they matter."""
    return _focus(importances)


def completeness(importances: Array) -> float:
    """Of DCI: whether one latent alone matters to a factor. `(D, F) ->` mean over factors."""
    return _focus(importances.T)


def has_groups(values: Array) -> bool:
    """Whether two values of a factor `(N,)` have the ten images that groups are drawn from."""
    return len(_Groups(values).count) >= 2


def factor_vae_score(codes: Array, factors: Array, seed: int) -> float:
    """Kim & Mnih (2018): how often the latent that varies least tells which factor stood still.

    In a group of 64 images that share the value of a factor, the latent votes that varies least, in units of its
    variance over all images. 500 groups a factor tell which factor a latent votes for most; the score is how often that
    is right in 500 others. Images are drawn with replacement from those there are, of values that ten or more have;
    theirs are rendered. Constant latents have no vote. Chance: 1 / F.
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
    """Higgins et al. (2017): how well a linear classifier tells which factor two images share.

    It sees means of `|z - z'|` over 64 pairs of images, each pair with a value of the factor in common, learns from 500
    such means a factor, and is scored by its accuracy for 500 others. Images are drawn as for `factor_vae_score`. Codes
    are in units of their standard deviation, which changes the classifier's penalty alone. Chance: 1 / F.
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
    """The images that share a value of one factor, of values with ten images or more."""

    def __init__(self, values: Array) -> None:
        self.order = np.argsort(values, kind="stable")
        _, first, count = np.unique(values[self.order], return_index=True, return_counts=True)
        self.first, self.count = first[count >= ENOUGH], count[count >= ENOUGH]

    def sample(self, rng: np.random.Generator, num: int) -> Array:
        """`(num, 64)` images, all of a group of one value, which is drawn evenly."""
        value = rng.integers(len(self.count), size=(num, 1))
        return self.order[self.first[value] + rng.integers(self.count[value], size=(num, GROUP))]

    def sample_pairs(self, rng: np.random.Generator, num: int) -> Iterator[Array]:
        """`(num, 64)` images and as many others, each with the value of its partner."""
        value = rng.integers(len(self.count), size=(num, GROUP))
        one = rng.integers(self.count[value])
        # Never itself: of a factor with many values, few images an each, such pairs would be more, and tell it.
        other = (one + 1 + rng.integers(self.count[value] - 1)) % self.count[value]
        return (self.order[self.first[value] + each] for each in (one, other))


def _standard(columns: Array) -> Array:
    """Columns of mean 0 and variance 1; what is constant is 0."""
    scale = np.where(np.ptp(columns, axis=0) > 0, columns.std(axis=0, dtype=np.float64), np.inf)
    return (columns - columns.mean(axis=0, dtype=np.float64)) / scale


def _gap(scores: Array) -> Array:
    """`(D, F) -> (F,)`: the best latent less the second, which is 0 where there is one alone."""
    second, best = np.sort(np.vstack([scores, np.zeros_like(scores[:1])]), axis=0)[-2:]
    return best - second


def _focus(shares: Array) -> float:
    """`1 - entropy / log(columns)` of the rows, normalised, averaged by their sums; 0 where all are 0."""
    sums = shares.sum(axis=1, keepdims=True)
    rows = shares / np.where(sums > 0, sums, 1)
    # Of one column: an entropy of 0, whatever it is divided by.
    focus = 1 - entr(rows).sum(axis=1) / np.log(max(shares.shape[1], 2))
    return float(focus.clip(0) @ sums[:, 0] / sums.sum()) if sums.sum() > 0 else 0.0
