"""Fills in missing pixels."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError
from vae_exp.data.picture import decode
from vae_exp.estimators.importance import CHUNK
from vae_exp.precision import on_cpu
from vae_exp.runs.build import bound
from vae_exp.runs.trained import Trained
from vae_exp.what import codes
from vae_exp.what.errors import mean_and_error, squared_error
from vae_exp.what.missing import Filled, Missing, make_mask

__all__ = ["inpaint"]

METHODS = {"pseudo_gibbs": "pseudo-Gibbs", "importance": "importance"}
SHOWN = 10
HOLE = (0.45, 0.6, 0.85)  # the colour of what is missing


def inpaint(
    trained: Trained,
    out: Path,
    num_images: int,
    mask: str,
    share: float,
    method: str,
    num_chains: int,
    burn_in: int,
    num_steps: int,
    num_samples: int,
    input: str | Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Fills the missing pixels of images drawn at random from the split and measures how near that is to the true ones.

    Writes `inpaint.png`: the images, their known pixels, for each method one random filling and the mean of all
    fillings, and the mean image of the training set in their place. For files it also writes the mean of all fillings
    of each file: `<name>_<method>.png`.

    Returns:
        For each method and for the mean image, with standard errors over images: `error_*`, the squared error per
        missing pixel, and `log_score_*`, the log of what the prediction gives to the true pixels, nats per image (for
        the mean image only if pixels are bits). `log_p_missing` is log p(x) - log p(x_known), both by importance
        sampling. None of these for files: the pixels under the mask need not be true.

    Raises:
        NoMeaningError: If the model has no density, or its likelihood does not score single pixels.
        ConfigError: If an option has no such value, or a file is no picture like the run's.
    """
    counts = {"num_images": num_images, "num_chains": num_chains, "num_steps": num_steps, "num_samples": num_samples}
    for key, count in counts.items():
        if count < 1:
            raise ConfigError(f"{key}={count}: at least 1 is needed")
    methods = [name for name in METHODS if method in (name, "both")]
    if not methods:
        raise ConfigError(f"method={method}: choose both, {' or '.join(METHODS)}")
    each = num_chains * burn_in + num_chains * num_steps * ("pseudo_gibbs" in methods)
    each += num_samples * ("importance" in methods) * (2 if input is None else 1)
    values: dict[str, list[Tensor]] = defaultdict(list)
    rows: dict[str, list[Tensor]] = defaultdict(list)

    def work(x: Tensor, y: Tensor | None) -> dict[str, Filled]:
        known = make_mask(mask, share, x)
        # If m2 must guess the label, it sees the known pixels only.
        told = codes.labels(trained.model, torch.where(known, x, 0), y, label)
        missing = Missing(trained.model, x, told, known, num_chains, bar.update)
        missing.burn_in(burn_in)
        filled = {}
        if "importance" in methods:  # first, because it uses the fillings at the end of the burn-in
            filled["importance"], part = missing.importance(num_samples)
            if input is None:
                whole = missing.log_p(num_samples)
                values["log_p_missing"].append(whole.log_px - part.log_px)
                values["variance"].append(whole.variance + part.variance)
        if "pseudo_gibbs" in methods:
            filled["pseudo_gibbs"] = missing.gibbs(num_steps)
        filled = {name: filled[name] for name in methods}
        for name, tensor in _values(filled, x, known, mean).items():
            values[name].append(tensor)
        if sum(map(len, rows["x"])) < SHOWN:
            for name, images in _rows(trained, filled, x, known, mean).items():
                rows[name].append(images)
        return filled

    if input is None:
        mean = _mean_image(trained)
        with trained.bar(min(num_images, trained.num_images()) * each, "inpaint", "latents") as bar:
            for x, y in _small_batches(trained, num_images, num_chains):
                work(x, y)
    else:
        mean = None
        x, _, names = codes.given(trained, input, label, [])
        with trained.bar(len(x) * each, "inpaint", "latents") as bar:
            filled = work(x, None)
        _save(trained, [input] if isinstance(input, str) else input, names, filled, out)
    source = trained.described(num_images) if input is None else "files"
    title = f"{trained.cfg.name}\n{source} with pixels missing, {Path(mask).stem}"
    columns = min(SHOWN, sum(map(len, rows["x"])))
    shown = torch.cat([torch.cat(images)[:columns] for images in rows.values()])
    plots.grid(shown, title, out / "inpaint.png", rows=list(rows), columns=columns)
    return _numbers(trained, {name: torch.cat(parts) for name, parts in values.items()}, input is None)


def _small_batches(trained: Trained, num_images: int, num_chains: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of the split, few enough at a time that their chains need little memory."""
    params = trained.model.likelihood.params_per_pixel
    size = max(1, CHUNK // (num_chains * params * torch.Size(trained.data.image_shape).numel()))
    for x, y in trained.batches(num_images=num_images):
        yield from zip(x.split(size), y.split(size), strict=True)


def _mean_image(trained: Trained) -> Tensor:
    """The mean of the training set, `(C, H, W)`; for bits Laplace's estimate, which is never exactly 0 or 1."""
    total, num = torch.zeros(trained.data.image_shape, device=trained.data.device), trained.num_images("train")
    with trained.bar(num, "mean image") as bar:
        for x, _ in trained.batches("train"):
            total += x.sum(dim=0)
            bar.update(len(x))
    return (total + 1) / (num + 2) if trained.data.representation.is_bits else total / num


def _values(filled: dict[str, Filled], x: Tensor, known: Tensor, mean: Tensor | None) -> dict[str, Tensor]:
    """The values that are kept for each image, `(B,)`."""
    values = {}
    for name, one in filled.items():
        values[f"error_{name}"] = squared_error(one.mean, x, ~known)
        values[f"log_score_{name}"] = one.log_score
        values["acceptance" if name == "pseudo_gibbs" else "ess"] = one.trust
    values["missing_pixels"] = (~known).flatten(1).sum(dim=1)
    if mean is not None:
        values["error_mean_image"] = squared_error(mean.expand_as(x), x, ~known)
        each = Bernoulli(mean, validate_args=False).log_prob(x)
        values["log_score_mean_image"] = torch.where(known, 0, each).flatten(1).sum(dim=1)
    return values


def _rows(
    trained: Trained, filled: dict[str, Filled], x: Tensor, known: Tensor, mean: Tensor | None
) -> dict[str, Tensor]:
    """The rows of the picture, in colour."""
    images = {"x": x, "known": x}
    for name, one in filled.items():
        images |= {f"{METHODS[name]}\none drawn": one.drawn, f"{METHODS[name]}\nmean": one.mean}
    if mean is not None:
        images["mean image"] = torch.where(known, x, mean)
    rows = {name: trained.shown(row).expand(-1, 3, -1, -1) for name, row in images.items()}
    rows["known"] = torch.where(known, rows["known"], torch.tensor(HOLE, device=x.device)[:, None, None])
    return rows


def _save(trained: Trained, paths: Sequence[str], names: list[str], filled: dict[str, Filled], out: Path) -> None:
    """Writes each file with its own known pixels, even if the model was given bits of them."""
    pixels = [decode(Path(path).read_bytes(), path, trained.data.image_shape) for path in paths]
    own = torch.from_numpy(np.stack(pixels)).to(trained.data.device) / 255
    for method, one in filled.items():
        images = torch.where(one.known, own, one.mean)
        codes.save(trained, images, [f"{name}_{method}" for name in names], out)


def _numbers(trained: Trained, values: dict[str, Tensor], are_true: bool) -> dict[str, Any]:
    numbers: dict[str, Any] = {"missing_pixels": float(on_cpu(values.pop("missing_pixels")).mean())}
    variance = values.pop("variance", None)
    if "acceptance" in values:
        numbers["acceptance"] = float(values.pop("acceptance").mean())
    if "ess" in values:
        ess = values.pop("ess")
        numbers |= {"ess_mean": float(ess.mean()), "ess_median": float(ess.median())}
    if not are_true:
        return numbers
    what = bound(trained.model, trained.data)
    for name, each in sorted(values.items()):
        if name.startswith("error") or (what["is_bound"] and name != "log_score_mean_image"):
            numbers |= mean_and_error(name, each)
    if what["is_bound"] and what["kind"] == "mass" and trained.data.representation.is_bits:
        numbers |= mean_and_error("log_score_mean_image", values["log_score_mean_image"])
    # With one latent per image the error is unknown.
    if "log_p_missing" in numbers and variance is not None and not variance.isnan().any():
        numbers["log_p_missing_se_draws"] = float(variance.clamp(min=0).sum().sqrt()) / len(variance)
    return numbers
