"""The places of images in the latent space."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError
from vae_exp.files import written
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["embeddings"]

NUM_TSNE = 2000  # images for t-SNE, whose time grows with their number


@torch.no_grad()
def embeddings(
    trained: Trained,
    out: Path,
    projection: str,
    num_images: int | None,
    attribute: str | None,
    input: str | Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Writes `embeddings.npz` and `embeddings.csv`, mean and scale of each posterior, and the means as a picture.

    The arrays are `mean (N, D)`, `scale (N, D)`, the posteriors' standard deviations, and `y (N,)`, -1 for none, or
    `y (N, A)`, attributes, of which `attribute` colours the picture (None: the first). If q
    does not know its mean (a flow), `mean` is a sample and there is no `scale`; for a point there is no `scale`,
    either. `name (N,)` is the file of an image, or its row in the file of the set. With the user's files the arrays
    hold these, and the picture shows them among the images of the split.

    Returns:
        With PCA, the share of the variance that each axis of the picture explains.

    Raises:
        ConfigError: If there is no such projection, or a file is no picture like the run's.
    """
    if projection not in ("pca", "tsne"):
        raise ConfigError(f"projection={projection}: choose pca or tsne")
    if num_images is not None and num_images < 2:
        raise ConfigError(f"num_images={num_images}: at least 2 are needed, or null for all")
    condition = trained.data.condition
    place = condition.place(attribute or condition.names[0])
    mean, scale, y = _posteriors(trained, num_images)
    chosen = trained.chosen(num_images)
    keys = trained.keys(num_images)
    arrays, marked = {"mean": mean, "scale": scale, "y": y}, mean[:0]
    names: list[str] = []
    if input is not None:
        names, marked, scale, told = _of_files(trained, input, label)
        arrays = {"mean": marked, "scale": scale, "y": told}
    known = {name: array.numpy() for name, array in arrays.items() if array is not None}
    labels = known["y"]
    beside = condition.table(torch.from_numpy(labels)) if labels.ndim == y.dim() else {"y": labels.tolist()}
    _write(out, known, [] if names else chosen.tolist(), names or keys, beside)
    is_tsne = projection == "tsne" and mean.shape[1] > 2
    if is_tsne:
        some = torch.isin(chosen, trained.chosen(NUM_TSNE))
        mean, y = mean[some], y[some]
    points, axis_names, numbers = _project(trained, mean, marked, is_tsne)
    of = ",y" if trained.model.context_dim else ""
    title = f"{trained.cfg.name}\nmeans of q(z|x{of}) of {trained.described(len(mean))}" + (
        ", by t-SNE" if is_tsne else ", by PCA" if mean.shape[1] > 2 else ""
    )
    own = dict(zip((Path(name).stem for name in names), points[len(mean) :], strict=True))
    colour = y if y.dim() == 1 else y[:, place]
    plots.scatter(points[: len(mean)], colour, title, axis_names, out / "embeddings.png", own, condition.names[place])
    return numbers


def _posteriors(trained: Trained, num_images: int | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """`(N, D), (N, D) or None, (N,)`: means, scales and labels of the images of the split, on the CPU."""
    means, scales, labels = [], [], []
    with trained.bar(min(trained.num_images(), num_images or trained.num_images()), "embeddings") as bar:
        for x, y in trained.batches(num_images=num_images):
            told = codes.labels(trained.model, x, y, None)
            mean, variance = codes.mean_and_variance(trained.model.code(x, told))
            means.append(mean.cpu())
            scales += [] if variance is None else [variance.sqrt().cpu()]
            labels.append(y.cpu())
            bar.update(len(x))
    return torch.cat(means), torch.cat(scales) if scales else None, torch.cat(labels)


def _of_files(
    trained: Trained, paths: str | Sequence[str], label: Label
) -> tuple[list[str], Tensor, Tensor | None, Tensor]:
    """Names, means `(N, D)`, scales `(N, D)` or None and labels, -1 for none, of the user's files, on the CPU."""
    names, means, scales, labels = [], [], [], []
    for some, x, y in trained.inputs(paths):
        told = codes.labels(trained.model, x, y, label)
        mean, variance = codes.mean_and_variance(trained.model.code(x, told))
        names += some
        means.append(mean.cpu())
        scales += [] if variance is None else [variance.sqrt().cpu()]
        labels.append(torch.full((len(x),), -1) if label is None or told is None else told.cpu())
    return names, torch.cat(means), torch.cat(scales) if scales else None, torch.cat(labels)


def _project(
    trained: Trained, mean: Tensor, marked: Tensor, is_tsne: bool
) -> tuple[Tensor, tuple[str, str], dict[str, Any]]:
    """Codes, also those of files, projected to `(N, 2)`, the names of the axes, and numbers about them."""
    each = torch.cat([mean, marked])
    if each.shape[1] <= 2:
        across = each if each.shape[1] == 2 else torch.cat([each, torch.zeros_like(each)], dim=1)
        return across, ("z0", "z1" if each.shape[1] == 2 else ""), {}
    # Imported here: it takes a second or two.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if is_tsne:
        # It has no map for new points: files are projected together with the other images.
        perplexity = min(30.0, (len(each) - 1) / 3)
        with trained.bar(1, "t-SNE", "pictures") as bar:
            points = TSNE(perplexity=perplexity, init="pca", random_state=trained.seed % 2**32).fit_transform(
                each.numpy()
            )
            bar.update(1)
        return torch.from_numpy(points), ("t-SNE 1", "t-SNE 2"), {}
    with np.errstate(invalid="ignore"):  # codes that are all the same: 0 / 0
        pca = PCA(2, svd_solver="full").fit(mean.numpy().astype(np.float64))
    shares = np.nan_to_num(pca.explained_variance_ratio_).tolist()
    axis_names = tuple(f"principal component {i + 1}, {share:.0%} of the variance" for i, share in enumerate(shares))
    return torch.from_numpy(pca.transform(each.numpy())), axis_names, {"explained_variance": shares}  # type: ignore[return-value]


def _write(
    out: Path, arrays: dict[str, Any], numbers: list[int], keys: list[Any], beside: dict[str, list[Any]]
) -> None:
    """Writes the codes of images with their numbers in the split, empty for files, and with what names them."""
    with written(out / "embeddings.npz", "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays, name=np.array(keys))
    columns = {"image": list(map(str, numbers)) or [""] * len(keys), "name": keys, **beside}
    for kind in ("mean", "scale"):
        for d in range(arrays[kind].shape[1]) if kind in arrays else ():
            columns[f"{kind}_{d}"] = [f"{value:.7g}" for value in arrays[kind][:, d]]
    with written(out / "embeddings.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
