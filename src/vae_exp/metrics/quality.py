"""How close the images of a model are to real images, measured on the features of a network.

FID: arXiv:1706.08500. KID: arXiv:1801.01401. Precision and recall: arXiv:1904.06991. Density and coverage:
arXiv:2002.09797.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from vae_exp import samplers
from vae_exp.config import NoMeaningError
from vae_exp.metrics.features import Inception, classifier
from vae_exp.metrics.options import at_least
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.supports import support_of

__all__ = ["distances", "manifolds", "quality"]

# As in the papers: 3 neighbours for precision and recall, 5 for density and coverage, 100 subsets of 1000 images.
NEAREST, NEAREST_OF_DENSITY = 3, 5
LEAST = 2 * NEAREST_OF_DENSITY  # images
SUBSETS, SUBSET_SIZE = 100, 1000


@torch.no_grad()
def quality(trained: Trained, num_images: int, sampler: str, inception: str | None) -> dict[str, Any]:
    """Compares images of the model with the same number of images of the split, on features.

    The images of the model are sampled pixels if data and likelihood are bits, else means of p(x | z), as in most
    papers. A conditional model is given the labels of the images of the split.

    Arguments:
        trained: The run.
        num_images: At most this many images of the split, drawn at random.
        sampler: The source of the latents: prior, gmm or flow, see `vae_exp.samplers`.
        inception: File with weights of torchvision's Inception v3. None: the features of a small classifier that is
            trained here, on the same data.

    Returns:
        `feature_fid`, `_kid`, `_precision`, `_recall`, `_density` and `_coverage` (`inception_fid`, ... with Inception;
        `feature_fid_gmm`, ... with another sampler than the prior); the same numbers with `_of_train`, for as many
        training images; and `feature_accuracy`, the accuracy of the classifier on validation images.

    Raises:
        ValueError: If an option is out of its range.
        ConfigError: If the file holds no weights.
        NoMeaningError: If there are no labels to train a classifier with, no prior to sample from, or too few images.
    """
    _check(num_images, sampler, inception)
    if trained.num_images() < LEAST:
        raise NoMeaningError(f"neighbours among {trained.num_images()} images say nothing: {LEAST} are needed")
    latents = samplers.sampler(trained, sampler, "quality.sampler")
    network = Inception(inception).to(trained.data.device).eval() if inception else classifier(trained)
    numbers: dict[str, Any] = {} if isinstance(network, Inception) else {"feature_accuracy": float(network.accuracy)}
    prefix = "inception" if inception else "feature"

    num_images = min(num_images, trained.num_images())
    y = torch.cat([y for _, y in trained.batches(num_images=num_images)])
    support = support_of(trained.model.likelihood, trained.data.image_shape)
    is_bits = trained.data.representation.is_bits and support is constraints.boolean
    compared = {"" if sampler == "prior" else f"_{sampler}": _made(trained, latents, y, is_bits)}
    if trained.split != "train":
        compared["_of_train"] = (x for x, _ in trained.batches("train", num_images))

    def features(batches: Iterable[Tensor], title: str) -> Tensor:
        parts = []
        with trained.bar(num_images, title) as bar:
            for x in batches:
                parts.append(on_cpu(network(trained.shown(x) if inception else x)))
                bar.update(len(x))
        return torch.cat(parts)

    real = features((x for x, _ in trained.batches(num_images=num_images)), f"features of {trained.split} images")
    for suffix, batches in compared.items():
        given = features(batches, f"features of images{suffix.replace('_', ' ')}")
        trained.reseed("distances")
        with trained.bar(num_images, "neighbours") as bar:
            found = distances(real, given) | manifolds(real.numpy(), given.numpy(), bar.update)
        numbers |= {f"{prefix}_{name}{suffix}": value for name, value in found.items()}
    pixels = "sampled pixels" if is_bits else "means of p(x|z)"
    return numbers | latents.numbers | {"quality_images": f"{num_images}, {pixels}, z from {latents.name}"}


def _check(num_images: int, sampler: str, inception: str | None) -> None:
    at_least(LEAST, num_images=num_images)
    if sampler not in samplers.KINDS:
        raise ValueError(f"sampler={sampler}: choose one of {', '.join(samplers.KINDS)}")
    if inception is not None and not Path(inception).is_file():
        raise ValueError(f"inception={inception}: there is no such file")


def _made(trained: Trained, latents: samplers.Sampler, y: Tensor, is_bits: bool) -> Iterator[Tensor]:
    """An image of the model for each label, in batches."""
    model = trained.model
    if model.num_classes:  # where a label is missing, take the classes in turn
        y = torch.where(y < 0, model.example_y(len(y)), y)
    for i, labels in enumerate(y.split(trained.data.eval_batch_size)):
        trained.reseed("images of the model", i)
        c = model.context(labels)
        px = model.decode(latents(len(labels), c), c)
        x = px.sample() if is_bits else px.mean
        yield x if trained.data.representation.is_real else x.clamp(0, 1)


class _Identity(nn.Identity):
    """The network that torchmetrics needs; it returns its input, because the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def distances(real: Tensor, made: Tensor) -> dict[str, float]:
    """Distances between features `(N, F)` and `(M, F)`, float64.

    Returns:
        `fid`, the squared Frechet distance of two normals (Heusel et al., 2017); `kid`, the unbiased squared MMD with
        kernel `(a.b / F + 1)^3` (Binkowski et al., 2018), as its mean over random subsets; `kid_std`, its standard
        deviation over these subsets.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, min(len(real), len(made)) // 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance`")  # it warns that it keeps the features
        metrics = (
            FrechetInceptionDistance(_Identity(real.shape[1])),
            KernelInceptionDistance(_Identity(real.shape[1]), subsets=SUBSETS, subset_size=size),
        )
    for metric in metrics:
        metric.update(real, real=True)
        metric.update(made, real=False)
    mean, std = metrics[1].compute()
    return {"fid": float(metrics[0].compute()), "kid": float(mean), "kid_std": float(std)}


def manifolds(
    real: npt.NDArray[Any], made: npt.NDArray[Any], progress: Callable[[int], object] = lambda num: None
) -> dict[str, float]:
    """Compares real points `(N, F)` and made points `(M, F)` by the balls around them.

    The radius of the ball around a point is the distance to its k-th neighbour among its own kind.

    Returns:
        `precision`, the share of made points in the ball of any real point, and `recall`, the reverse (Kynkaanniemi et
        al., 2019), k = 3; `density`, the mean number of balls of real points that contain a made point, divided by k,
        and `coverage`, the share of real points with a made point in their ball (Naeem et al., 2020), k = 5.
    """
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    def radii(points: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
        return NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[0][:, -1]  # a point is not its own neighbour

    near, far, near_made = radii(real, NEAREST), radii(real, NEAREST_OF_DENSITY), radii(made, NEAREST)
    is_precise, count = np.zeros(len(made), dtype=bool), np.zeros(len(made))
    recalled = covered = done = 0
    for d in pairwise_distances_chunked(real, made, working_memory=64):  # (rows, M)
        rows = slice(done, done + len(d))
        is_precise |= (d <= near[rows, None]).any(axis=0)
        count += (d <= far[rows, None]).sum(axis=0)
        recalled += (d <= near_made).any(axis=1).sum()
        covered += (d.min(axis=1) <= far[rows]).sum()
        done += len(d)
        progress(len(d))
    return {
        "precision": float(is_precise.mean()),
        "recall": float(recalled / len(real)),
        "density": float(count.mean() / NEAREST_OF_DENSITY),
        "coverage": float(covered / len(real)),
    }
