"""One latent dimension at a time."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.distributions import OneHots, is_discrete
from vae_exp.draws import Draw
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["kl_of_latents", "traversal"]

WIDTH = 3  # standard deviations to each side


@torch.no_grad()
def traversal(
    trained: Trained,
    out: Path,
    num_dims: int,
    num_steps: int,
    along: str,
    image: int,
    input: str | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Writes `traversal.png`: an image, and its code with one latent at a time set to values that it really takes.

    With `along=condition` the code stays, and a conditional model is given every class, or one attribute at a time at
    other values: those of a binary or categorical one, and of a real one from -2 to +2 standard deviations around its
    mean over the training images.

    Latents go from -3 to +3 standard deviations around the mean, both of the aggregate posterior of the split; a bit
    takes 0 and 1, a categorical its categories. Latents are sorted by their KL, nats per image, the largest first; if
    the KL is not a sum over latents, by the variance of the posterior means.

    Returns:
        `latents` in this order; `kl` if there is one, `variance`; for real numbers `mean` and `std` of the aggregate.

    Raises:
        ConfigError: If the file is no picture like the run's, an index does not exist, or a label is missing.
    """
    model = trained.model
    _check(trained, num_dims, num_steps, along, image, input)
    x, y, names = codes.given(trained, input, label, [image])
    source = f"{trained.split_title} image {image}" if input is None else names[0]
    if along == "condition":
        return _along_condition(trained, out, x, y, num_steps, source)
    mean, between, within, kl = _aggregate(trained)
    std = (between + within).sqrt()
    q = model.code(x, y)
    start, values, heads = _values(q, mean, std, num_steps)
    width = values.shape[-1]  # of a latent in z: 1, or the categories
    variance = between.unflatten(-1, (-1, width)).sum(dim=-1)
    order = (variance if kl is None else kl).argsort(descending=True, stable=True).tolist()
    z = start.expand(len(order[:num_dims]), values.shape[1], -1).clone().unflatten(-1, (-1, width))
    rows = []
    for row, d in enumerate(order[:num_dims]):
        z[row, :, d] = values[d]
        size = f"var {variance[d]:.2f}" if kl is None else f"KL {kl[d]:.2f}"
        rows.append(f"z{d}  {size}" + ("" if is_discrete(q) else f"\n{mean[d]:.2f} ± {std[d]:.2f}"))
    num_rows, z = len(z), z.flatten(2).flatten(0, 1)
    c = model.context(y)
    images = codes.decode(model, z, None if c is None else c.expand(len(z), -1))
    # In front of each row the image itself.
    images = torch.cat([x.expand(num_rows, 1, *x.shape[1:]), images.unflatten(0, (num_rows, -1))], dim=1).flatten(0, 1)
    heads = ["x", *heads]
    by = "variance of their means over images" if kl is None else "KL in nats"
    steps = "" if is_discrete(q) else "; columns in standard deviations"
    told = "" if y is None else f" ({model.condition.caption(y[0])})"
    title = f"{trained.cfg.name}\nthe code of {source}{told}, one latent at a time, by {by}{steps}"
    plots.grid(trained.shown(images), title, out / "traversal.png", rows=rows, columns=len(heads), heads=heads)
    numbers = {"latents": order, "variance": variance[order].tolist()}
    if kl is not None:
        numbers["kl"] = kl[order].tolist()
    if not is_discrete(q):
        numbers |= {"mean": mean[order].tolist(), "std": std[order].tolist()}
    return numbers


def _along_condition(
    trained: Trained, out: Path, x: Tensor, y: Tensor | None, num_steps: int, source: str
) -> dict[str, Any]:
    """The same z, decoded with one attribute at a time at other values, or with every class."""
    model = trained.model
    if y is None:
        raise NoMeaningError(
            f"along=condition: {type(model).__name__} is given no label: train model=cvae, or see what=edit"
        )
    code = codes.mean_and_variance(model.code(x, y))[0]
    places = range(len(model.condition.names))
    varied = [model.condition.varied(y[0].cpu(), place, num_steps) for place in places]
    columns = max(map(len, varied))
    cells = []
    for row in varied:
        c = model.context(torch.stack([told for _, told in row]).to(x.device))
        images = trained.shown(codes.decode(model, code.expand(len(row), -1), c)).cpu()
        cells.append(torch.cat([images, torch.ones(columns - len(row), *images.shape[1:])]))
    ends = [[name.rpartition(" = ")[2] for name, _ in row] for row in varied]
    rows = [
        f"{name}\n{', '.join(texts)}" if len(texts) <= 3 else f"{name}\n{texts[0]} to {texts[-1]}"
        for name, texts in zip(model.condition.names, ends, strict=True)
    ]
    title = (
        f"{trained.cfg.name}\nthe code of {source} ({model.condition.caption(y[0])})\n"
        f"decoded with {'every class' if model.num_classes else 'one attribute at a time at other values'}"
    )
    plots.grid(torch.cat(cells), title, out / "traversal.png", rows=rows, columns=columns)
    return {}


def _check(trained: Trained, num_dims: int, num_steps: int, along: str, image: int, path: Any) -> None:
    if along not in ("latents", "condition"):
        raise ConfigError(f"along={along}: choose latents or condition")
    if num_dims < 1 or num_steps < 2:
        raise ConfigError(f"num_dims={num_dims} num_steps={num_steps}: at least 1 and 2 are needed")
    if not (path is None or isinstance(path, str)):
        raise ConfigError(f"input={path}: one file is needed")
    if not 0 <= image < trained.num_images():
        raise ConfigError(f"image={image}: the {trained.split} images are 0 to {trained.num_images() - 1}")


def _aggregate(trained: Trained) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """For the split, `(D,)` each: mean and variance of the codes, the mean variance of the posteriors (both variances
    add up to that of the aggregate), and the mean KL of each latent if there is one."""
    model, means, variances, kls = trained.model, [], [], []
    with trained.bar(trained.num_images(), "traversal") as bar:
        for x, given in trained.batches():
            y = codes.labels(model, x, given, None)
            q = model.code(x, y)
            mean, variance = codes.mean_and_variance(q)
            means.append(mean.cpu())
            variances.append(torch.zeros_like(means[-1]) if variance is None else variance.cpu())
            kl = kl_of_latents(q, model.prior(model.context(y)), x)
            kls += [] if kl is None else [kl.cpu()]
            bar.update(len(x))
    codes_, spread = on_cpu(torch.cat(means)), on_cpu(torch.cat(variances))
    kl = on_cpu(torch.cat(kls)).mean(dim=0) if kls else None
    return codes_.mean(dim=0), codes_.var(dim=0, correction=0), spread.mean(dim=0), kl


def kl_of_latents(q: Distribution, p: Distribution | None, x: Tensor) -> Tensor | None:
    """The KL of q(z|x) from p(z) of each latent, `(N, V)`, nats; None if it is not a sum over latents.

    Arguments:
        q: The posteriors of N images.
        p: The prior, None for an autoencoder.
        x: The images.
    """
    if isinstance(q, OneHots) and isinstance(p, OneHots):
        return (q.log_probs.exp() * (q.log_probs - p.log_probs)).sum(dim=-1)
    return Draw(x, x, q, p, decode=lambda z: q).kl_per_dim  # of which it reads q and p alone


def _values(q: Distribution, mean: Tensor, std: Tensor, num_steps: int) -> tuple[Tensor, Tensor, list[str]]:
    """A code `(D,)`, the values `(V, steps, D / V)` of each of its latents, and the names of these values."""
    if isinstance(q, OneHots):
        one_hots = torch.eye(q.log_probs.shape[-1], device=q.log_probs.device)
        start = one_hots[q.log_probs[0].argmax(dim=-1)].flatten()
        return start, one_hots.expand(q.log_probs.shape[-2], -1, -1), [f"{k}" for k in range(len(one_hots))]
    code = codes.mean_and_variance(q)[0][0]
    if is_discrete(q):
        return code.round(), torch.tensor([[0.0], [1.0]], device=code.device).expand(len(code), -1, -1), ["0", "1"]
    steps = torch.linspace(-WIDTH, WIDTH, num_steps, dtype=mean.dtype)
    values = mean[:, None] + steps * std[:, None]
    return code, values[..., None].to(code), [f"{step:+.3g}" if step else "mean" for step in steps.tolist()]
