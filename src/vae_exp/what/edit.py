"""Adds to images what one class has and another lacks, or takes it away.

Attribute vectors: Larsen et al. (2016), arXiv:1512.09300.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["edit", "vector_of"]


@torch.no_grad()
def vector_of(trained: Trained, source: int, target: int, place: int = 0) -> tuple[Tensor, list[int]]:
    """The attribute vector `(D,)`, mean code of `target` minus that of `source`, and the numbers of images in both.

    The means are over the training images with these labels, or in these groups of the attribute at a place (Larsen et
    al., 2016).

    Raises:
        ConfigError: If one of them has no training image.
    """
    model = trained.model
    found: dict[int, list[Tensor]] = {source: [], target: []}
    with trained.bar(trained.num_images("train"), "mean codes") as bar:
        for x, y in trained.batches("train"):
            group = trained.data.condition.grouped(y, place)
            for k, means in found.items():
                if (group == k).any():
                    means.append(on_cpu(codes.mean_and_variance(model.code(x[group == k], None))[0]))
            bar.update(len(x))
    for name, k in (("source", source), ("target", target)):
        if not found[k]:
            raise ConfigError(f"{name}={k}: no training image has this label")
    of_source, of_target = (torch.cat(means) for means in found.values())
    return of_target.mean(dim=0) - of_source.mean(dim=0), [len(of_source), len(of_target)]


def edit(
    trained: Trained,
    out: Path,
    source: int,
    target: int,
    attribute: str | None,
    strengths: Sequence[float],
    num_images: int,
    input: str | Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Writes `edit.png`: images with the attribute vector of two classes added to their codes; files also one by one.

    A conditional model keeps the class out of its code: there z stays and the label takes all values. Where y is
    attributes, `attribute` names one of them, and its values are the classes; of a real one these are two, 0 for
    images up to its mean over the training images, 1 for those above.

    Returns:
        The `vector`, its `norm`, and the numbers of training images behind it, `of_source` and `of_target`.

    Raises:
        ConfigError: If a class has no image, or a file is no picture like the run's.
        NoMeaningError: If the data have no labels, or codes are discrete.
    """
    model, numbers = trained.model, {}
    condition = trained.data.condition
    if not condition.width:
        raise NoMeaningError("what=edit: the data have no labels and so no classes to edit; see what=traversal")
    place = condition.place(attribute)
    trained.setup("train")
    condition.fit(trained.data.splits["train"].y)
    groups = condition.groups(place)
    _check(len(groups), source, target, num_images)
    x, y, names, rows = _shown(trained, source, target, place, num_images, input, label)
    q = model.code(x, y)
    if y is not None:
        z, _ = codes.mean_and_variance(q)
        varied = [model.condition.varied(each, place) for each in y.cpu()]
        settings = [setting for setting, _ in varied[0]]
        c = model.context(torch.stack([row for each in varied for _, row in each]).to(x.device))
        images = codes.decode(model, z.repeat_interleave(len(settings), dim=0), c)
        what = f"z of each image, decoded with every {'label' if condition.num_classes else 'value of the attribute'}"
    else:
        codes.check_continuous(q, "edit")
        vector, counts = vector_of(trained, source, target, place)
        numbers = {"vector": vector.tolist(), "norm": float(vector.norm())}
        numbers |= {"of_source": counts[0], "of_target": counts[1]}
        z, _ = codes.mean_and_variance(q)
        by = torch.tensor(list(strengths), device=x.device)[:, None] * vector.to(z)
        settings = [f"{strength:+g}" if strength else "recon" for strength in strengths]
        images = codes.decode(model, (z[:, None] + by).flatten(0, 1))
        of_target, of_source = (f"class {k}" if condition.num_classes else groups[k] for k in (target, source))
        what = f"codes plus multiples of (mean code of {of_target} - mean code of {of_source})"
    cells = torch.cat([x[:, None], images.unflatten(0, (len(x), -1))], dim=1).flatten(0, 1)
    title = f"{trained.cfg.name}\n{what}"
    heads = ["x", *settings]
    plots.grid(trained.shown(cells), title, out / "edit.png", rows=rows, columns=len(heads), heads=heads)
    if input is not None:
        labelled = [f"{name}_{setting.replace(' = ', '')}" for name in names for setting in settings]
        codes.save(trained, images, labelled, out)
    return numbers


def _check(num_classes: int, source: int, target: int, num_images: int) -> None:
    if source == target:
        raise ConfigError(f"source={source} target={target}: two classes are needed")
    if num_images < 1:
        raise ConfigError(f"num_images={num_images}: at least 1 of either class is needed")
    for name, k in (("source", source), ("target", target)):
        if not 0 <= k < num_classes:
            raise ConfigError(f"{name}={k}: the labels are 0 to {num_classes - 1}")


def _shown(
    trained: Trained,
    source: int,
    target: int,
    place: int,
    num_images: int,
    paths: str | Sequence[str] | None,
    label: Label,
) -> tuple[Tensor, Tensor | None, list[str], list[str]]:
    """Images, the labels that the model is given, their names and the captions of the rows."""
    if paths is not None:
        x, y, names = codes.given(trained, paths, label, [])
        return x, y, names, names
    condition = trained.data.condition
    found: dict[int, list[tuple[Tensor, Tensor]]] = {source: [], target: []}
    for x, y in trained.batches():
        group = condition.grouped(y, place)
        for k, pairs in found.items():
            chosen = (group == k).nonzero()[: num_images - len(pairs), 0]
            pairs += zip(x[chosen], y[chosen], strict=True)
        if all(len(pairs) == num_images for pairs in found.values()):
            break
    if not any(found.values()):
        raise ConfigError(f"source={source} target={target}: no {trained.split} image has these labels")
    x, y = (torch.stack(each) for each in zip(*(pair for pairs in found.values() for pair in pairs), strict=True))
    rows = [condition.groups(place)[k] for k, pairs in found.items() for _ in pairs]
    return x, codes.labels(trained.model, x, y, label), [], rows
