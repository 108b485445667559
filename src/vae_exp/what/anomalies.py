"""Images that are improbable under the model.

Likelihood ratio: Ren et al. (2019), arXiv:1906.02845.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from vae_exp import plots
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data import Images
from vae_exp.estimators.importance import importance_sampling
from vae_exp.files import written
from vae_exp.models import VAE
from vae_exp.precision import exact, on_cpu
from vae_exp.runs.build import bound, data_config, make
from vae_exp.runs.trained import Trained, restore
from vae_exp.what.errors import mean_and_error

__all__ = ["anomalies", "check_options", "score_each"]

SHOWN = 20
SCORES = {
    "elbo": "ELBO",
    "iwae": "log p(x) by importance sampling",
    "likelihood_ratio": "log p(x) - log p_background(x)",
    "recon": "E log p(x|z)",
}


class _Scored(NamedTuple):
    """A data set, in its order."""

    scores: Tensor  # (N,) float64, nats
    y: Tensor  # (N,)
    numbers: Tensor  # (N,), of the images in their split
    keys: list[Any]  # their names: files, or rows in the file of the set
    worst: Tensor  # the images with the lowest scores, (M, C, H, W), from the lowest up


@torch.no_grad()
def anomalies(
    trained: Trained,
    out: Path,
    score: str,
    num_samples: int,
    num_images: int | None,
    background: str | None,
    against: str | None,
    input: str | Sequence[str] | None,  # noqa: A002
) -> dict[str, Any]:
    """Scores images, lower for stranger ones. The label of a conditional model is summed out, with equal probabilities.

    Writes `anomalies.npz` and `anomalies.csv`, the histogram `anomalies.png` and the images that score lowest,
    `worst.png`.

    Returns:
        `score`, and `score_against` for another data set: means in nats per image with standard errors over images;
        `auroc`, the probability that an image of the run's data scores higher than one of the others, where ties count
        half; for each of `files` the score and the share of the run's images that score lower.

    Raises:
        NoMeaningError: If the model has no density.
        ConfigError: If an option has no such value, or the background or the other data do not fit the run.
    """
    check_options(trained, score, num_samples, num_images, background)
    models = [trained.model, *([] if background is None else [_background(trained, background)])]

    def score_of(x: Tensor, *purpose: Any) -> Tensor:
        each = []
        for model in models:
            trained.reseed(*purpose)  # both with the same noise, so that a model against itself gives 0
            each.append(score_each(model, x, score, num_samples))
        return each[0] if background is None else each[0] - each[1]

    trained.setup(trained.split)
    own_name = f"{_name(trained.data)}, {trained.split}"
    own, other = _score_all(trained, score_of, own_name, num_images), None
    numbers: dict[str, Any] = {"num_images": len(own.scores), **mean_and_error("score", own.scores)}
    sets = {own_name: own}
    title = f"{trained.cfg.name}\nhow probable images are: {SCORES[score]}"
    if against is not None:
        data = _other_data(trained, against)
        other_name = f"{_name(data)}, {trained.split}" if _name(data) != _name(trained.data) else "against"
        other = sets[other_name] = _score_all(replace(trained, data=data), score_of, other_name, num_images)
        is_own = np.repeat([1, 0], [len(own.scores), len(other.scores)])
        numbers |= mean_and_error("score_against", other.scores)
        numbers["auroc"] = float(roc_auc_score(is_own, torch.cat([own.scores, other.scores]).numpy()))
        title += f", AUROC {numbers['auroc']:.3f}"
    files: dict[str, float] = {}
    if input is not None:
        for i, (names, x, _) in enumerate(trained.inputs(input)):
            files |= dict(zip(names, score_of(x, "input", i).tolist(), strict=True))
        numbers["files"] = {
            name: {"score": value, "share_lower": float(on_cpu(own.scores < value).mean())}
            for name, value in files.items()
        }
    _write(out, sets, files)
    unit = f"{SCORES[score]}, nats per image"
    marked = {Path(path).name: value for path, value in files.items()}
    plots.histogram({name: one.scores for name, one in sets.items()}, unit, title, out / "anomalies.png", marked)
    about = f"{trained.cfg.name}\nof {trained.described(num_images)} those that score lowest: {unit}"
    _draw_worst(trained, own, about, out / "worst.png")
    return numbers


def check_options(
    trained: Trained, score: str, num_samples: int, num_images: int | None, background: str | None
) -> None:
    """Raises ConfigError if an option has no such value, or one needs another."""
    if score not in SCORES:
        raise ConfigError(f"score={score}: choose one of {', '.join(SCORES)}")
    if num_samples < 1 or (num_images is not None and num_images < 1):
        raise ConfigError(
            f"num_samples={num_samples} num_images={num_images}: at least 1 of each, or null for all images"
        )
    if score != "recon":
        trained.model.require("density", "score=recon")
    if trained.model.needs_labels and not trained.model.num_classes:
        raise NoMeaningError(
            f"what=anomalies sums over the classes of a conditional model, and {trained.data.condition.no_classes}: "
            "train model=vae"
        )
    if (background is None) == (score == "likelihood_ratio"):
        raise ConfigError("score=likelihood_ratio and background=<run folder> need each other, only one was given")


def score_each(model: VAE, x: Tensor, score: str, num_samples: int) -> Tensor:
    """`(B,)`; for a CVAE `log sum_y p(y) exp(score given y)`, a bound of log p(x) if those are bounds of log p(x|y)."""
    each = []
    for k in range(model.num_classes) if model.needs_labels else (None,):
        y = None if k is None else torch.full((len(x),), k, device=x.device)
        draw = model.draw(x, y)
        if score in ("iwae", "likelihood_ratio"):
            each.append(importance_sampling(draw, num_samples).log_px)
        else:
            resampled = (draw.resample(1) for _ in range(num_samples))
            terms = [one.elbo if score == "elbo" else -one.recon for one in resampled]
            each.append(torch.stack(terms).to(exact(x)).mean(dim=0))
    return torch.stack(each).logsumexp(dim=0) - log(len(each))


def _score_all(trained: Trained, score_of: Callable[..., Tensor], name: str, num_images: int | None) -> _Scored:
    numbers = trained.chosen(num_images)
    scores, labels, done = on_cpu(torch.empty(0)), [], 0
    worst, which = torch.empty(0, *trained.data.image_shape), torch.empty(0, dtype=torch.long)
    with trained.bar(len(numbers), f"scores of {name}") as bar:
        for i, (x, y) in enumerate(trained.batches(num_images=num_images)):
            scores = torch.cat([scores, on_cpu(score_of(x, trained.split, i))])
            labels.append(y.cpu())
            which = torch.cat([which, torch.arange(done, done + len(x))])
            lowest = scores[which].argsort()[:SHOWN]
            worst, which, done = torch.cat([worst, x.cpu()])[lowest], which[lowest], done + len(x)
            bar.update(len(x))
    return _Scored(scores, torch.cat(labels), numbers, trained.keys(num_images), worst)


def _background(trained: Trained, folder: str) -> VAE:
    """The model of another run on the same pixels (Ren et al., 2019)."""
    other = restore(folder, accelerator="cpu", progress=False)
    model, needed = other.model.to(trained.data.device), {}
    for one, data in ((trained.model, trained.data), (other.model, other.data)):
        needed[one] = (data.image_shape, data.representation.support, bound(one, data)["kind"], one.has("density"))
    if needed[model] != needed[trained.model]:
        raise ConfigError(
            f"background={folder} is a model of other images: {other.data.image_shape}, "
            f"{other.data.representation.title}, "
            f"{other.cfg.likelihood._target_.rpartition('.')[2]}; the run's: {trained.data.image_shape}, "
            f"{trained.data.representation.title}, {trained.cfg.likelihood._target_.rpartition('.')[2]}"
        )
    return model


def _name(data: Images) -> str:
    return data.source.name or type(data.source).__name__


def _other_data(trained: Trained, against: str) -> Images:
    """Other images, prepared in the same way as the run's own.

    Raises:
        ConfigError: If there are no such data, they cannot be read, or they have another size or other values.
    """
    cfg = data_config("against", against, trained.data.root, trained.data.image_shape, trained.allow)
    try:
        data = make(cfg, "data").like(trained.data)
        data.prepare_data()
        data.setup("test" if trained.split == "test" else "fit")
    except (ConfigError, OSError, ValueError) as error:
        raise ConfigError(f"against={against}: {error}") from error
    return data


def _draw_worst(trained: Trained, own: _Scored, title: str, path: Path) -> None:
    """The images with the lowest scores, each with its number in the split and its score."""
    lowest = own.scores.argsort()[: len(own.worst)].tolist()
    names = [own.keys[i] if isinstance(own.keys[i], str) else f"image {own.numbers[i]}" for i in lowest]
    captions = [f"{Path(name).name}\n{own.scores[i]:.1f}" for name, i in zip(names, lowest, strict=True)]
    plots.captioned(trained.shown(own.worst), captions, title, path)


def _write(out: Path, sets: dict[str, _Scored], files: dict[str, float]) -> None:
    own, *others = sets.values()
    arrays: dict[str, Any] = {"score": own.scores.numpy(), "y": own.y.numpy(), "image": own.numbers.numpy()}
    arrays["name"] = np.array(own.keys)
    for other in others:
        arrays |= {"score_against": other.scores.numpy(), "y_against": other.y.numpy()}
        arrays |= {"image_against": other.numbers.numpy()}
    with written(out / "anomalies.npz", "wb") as file:
        np.savez(file, **arrays)
    with written(out / "anomalies.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "image", "name", "y", "score"])
        for name, one in sets.items():
            y = [" ".join(f"{v:g}" for v in row) if isinstance(row, list) else row for row in one.y.tolist()]
            writer.writerows(
                [name, *row] for row in zip(one.numbers.tolist(), one.keys, y, one.scores.tolist(), strict=True)
            )
        writer.writerows(["files", "", name, "", value] for name, value in files.items())
