"""Disentanglement scores, for images with known factors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vae_exp import charts
from vae_exp.config import NoMeaningError
from vae_exp.metrics.latents import DEAD, explained
from vae_exp.metrics.options import at_least
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained

__all__ = ["factors"]

MOST_VALUES = 50  # of a factor that is taken as it is


@torch.no_grad()
def factors(trained: Trained, num_images: int) -> dict[str, Any]:
    """The scores of `vae_exp.metrics.disentanglement`, for the posterior means of images of the split.

    The source has `factors(split)`, `(N, F)`, or states them with the images; `factor_names`, and `unordered`, the
    names of those whose values have no order. Where it has none, the attributes in y are the factors. A factor of more
    than 50 values counts by its deciles.

    If the split has more than `num_images`, that many are drawn at random with `seed`. If the posterior mean has no
    formula (a flow, several layers), the code is one sample of the posterior; for m2 it is the mean of one sample for
    each class.

    If the image explains at most 1 % of the variance of a latent, the latent is treated as constant in all scores, as
    Kim & Mnih (2018) do in their score. Otherwise, with bins over its own range, its small rest would still contain
    information. The absolute range of its mean does not matter. A factor is left out of all scores if fewer than two of
    its values have ten images, because then no groups can be drawn.

    Returns:
        `mig`, `dci_disentanglement`, `dci_completeness`, `dci_informativeness`, `sap`, `modularity`,
        `factor_vae_score`, `beta_vae_score`; under `factors`, what they were computed from, the mutual information of
        each factor and latent in nats, and its mean over latents for shuffled factors, which is chance. The picture
        `images/factors.png` shows this information.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If the factors are not known, or fewer than two can be scored.
    """
    at_least(1, num_images=num_images)
    # scikit-learn is slow to import, and most runs have no factors.
    from vae_exp.metrics import disentanglement as d

    known, factor_names, unordered = _known(trained)
    codes, within, kind = _codes(trained, num_images)
    values = np.stack([_levels(column) for column in known[trained.chosen(num_images)].numpy().T], axis=1)
    scored = [k for k, column in enumerate(values.T) if d.has_groups(column)]
    names = [factor_names[k] for k in scored]
    if len(names) < 2:
        raise NoMeaningError(
            f"{len(codes)} images are too few: two factors are needed that each have two values with ten images. "
            "Ways out: split=train, a larger factors.num_images"
        )
    values, is_ordered = values[:, scored], [name not in unordered for name in names]
    is_used = explained(torch.from_numpy(codes.var(axis=0)), within).numpy() > DEAD
    codes = np.where(is_used, codes, 0.0)

    trained.reseed("factors")
    seed = torch.initial_seed()
    with trained.bar(5, "disentanglement", "scores") as bar:
        information, entropies = d.mutual_information(codes, values), d.entropy(values)
        shuffled = np.random.default_rng(seed).permuted(values, axis=0)
        chance = d.mutual_information(codes[:, is_used], shuffled).mean(axis=0) if is_used.any() else 0 * entropies
        numbers = {"mig": d.mig(information, entropies), "modularity": d.modularity(information)}
        bar.update()
        importances, informativeness = d.importance(codes, values, is_ordered, seed)
        numbers["dci_disentanglement"] = d.disentanglement(importances)
        numbers["dci_completeness"] = d.completeness(importances)
        numbers["dci_informativeness"] = float(informativeness.mean())
        bar.update()
        numbers["sap"] = d.sap(codes, values, is_ordered)
        bar.update()
        numbers["factor_vae_score"] = d.factor_vae_score(codes, values, seed)
        bar.update()
        numbers["beta_vae_score"] = d.beta_vae_score(codes, values, seed)
        bar.update()

    folder = trained.folder / "images"
    folder.mkdir(exist_ok=True)
    drawn = charts.scores(
        information.T.tolist(),
        [f"{n}\nH {h:.2f}, chance {c:.2f}" for n, h, c in zip(names, entropies, chance, strict=True)],
        label="mutual information I(z; factor), nats",
        xlabel="latent",
        title=f"{trained.cfg.name}, {trained.described(len(codes))}\n"
        "information of each latent about a factor, out of its entropy H",
    )
    charts.save(
        drawn,
        folder / ("factors.png" if trained.split == "test" else f"factors_{trained.split}.png"),
        f"evaluate, {trained.split} images",
    )
    about = {
        "names": names,
        "left_out": [name for name in factor_names if name not in names],
        "num_images": len(codes),
        "codes": kind,
        "used_latents": np.flatnonzero(is_used).tolist(),
        "entropy": dict(zip(names, entropies.tolist(), strict=True)),
        "mutual_information": dict(zip(names, information.T.tolist(), strict=True)),
        "mutual_information_by_chance": dict(zip(names, chance.tolist(), strict=True)),
    }
    return numbers | {"factors": about}


def _known(trained: Trained) -> tuple[torch.Tensor, Sequence[str], Sequence[str]]:
    """Factors of the images of the split, `(N, F)`, their names, and those whose values have no order."""
    trained.setup(trained.split)
    source, split, condition = trained.data.source, trained.data.splits[trained.split], trained.data.condition
    if split.factors is not None:
        return split.factors, source.factor_names, source.unordered
    if source.factor_names:
        return source.factors(trained.split), source.factor_names, source.unordered
    if condition.columns:
        unordered = [column.name for column in condition.columns if column.categories]
        return split.y.cpu(), condition.names, unordered
    raise NoMeaningError(
        f"the factors of the images of {type(source).__name__} are not known: data=sprites or data=dsprites, or your "
        "own, `factors` in a file of arrays, attributes.csv in a folder"
    )


def _levels(column: np.ndarray) -> np.ndarray:
    """Values of a factor as whole numbers from 0: their order, or their deciles where there are many or real ones."""
    there, order = np.unique(column, return_inverse=True)
    if len(there) <= MOST_VALUES and (there == np.round(there)).all():
        return column.astype(np.int64)
    if len(there) <= MOST_VALUES:
        return order
    return np.searchsorted(np.quantile(column, np.linspace(0.1, 0.9, 9)), column)


def _codes(trained: Trained, num_images: int) -> tuple[np.ndarray, torch.Tensor, str]:
    """Codes `(N, D)` float64, the mean posterior variance around them `(D,)`, and whether they are means or samples.

    The variance is 0 for samples, and for codes that have no density.
    """
    codes, variances, kind = [], [], "mean"
    with trained.bar(min(num_images, trained.num_images()), "codes") as bar:
        for x, y in trained.batches(num_images=num_images):
            draw = trained.model.draw(x, y)
            z = draw.z_mean
            if z is None:
                kind, z = "sample", draw.mean(1)
            variance = draw.z_variance
            codes.append(on_cpu(z))
            variances.append(torch.zeros_like(codes[-1]) if variance is None else on_cpu(variance))
            bar.update(len(x))
    return torch.cat(codes).numpy(), torch.cat(variances).mean(dim=0), kind
