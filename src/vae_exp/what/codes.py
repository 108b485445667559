"""From images to codes and back, for all uses that work on given images."""

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.distributions import is_discrete, mean_of, variance_of
from vae_exp.models import VAE
from vae_exp.runs.trained import Trained

__all__ = ["check_continuous", "decode", "given", "labels", "mean_and_variance", "save"]


def given(
    trained: Trained, paths: str | Sequence[str] | None, label: Label, chosen: Sequence[int]
) -> tuple[Tensor, Tensor | None, list[str]]:
    """Images, the labels that the model is given, and names: the user's files, or else the chosen images of the split.

    Raises:
        ConfigError: If a file is no picture like the run's, or a label is missing or does not exist.
    """
    if paths is None:
        x, y = _pick(trained, chosen)
        return x, labels(trained.model, x, y, label), [str(i) for i in chosen]
    names, batches, _ = zip(*trained.inputs(paths), strict=True)
    x = torch.cat(batches)
    return x, labels(trained.model, x, None, label), [Path(path).stem for some in names for path in some]


def _pick(trained: Trained, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images of the split and their labels, by their numbers."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    start = 0
    for x, y in trained.batches():
        kept |= {i: (x[i - start], y[i - start]) for i in chosen if start <= i < start + len(x)}
        start += len(x)
        if start > max(chosen):
            break
    x, y = (torch.stack(each) for each in zip(*(kept[i] for i in chosen), strict=True))
    return x, y


def labels(model: VAE, x: Tensor, y: Tensor | None, label: Label) -> Tensor | None:
    """`(N,)`, the labels that a conditional model is given, or `(N, A)`, attributes; None for other models.

    That is `label` if it is set (attributes that it does not name are those of y); else y, the labels of the data, for
    a model that needs them; else the model's guess, argmax q(y|x).

    Raises:
        ConfigError: If a label is missing, out of range, or set for a model without labels.
    """
    if label is not None and not model.context_dim:
        raise ConfigError(f"label={label}: {type(model).__name__} is given no label, leave null (or model=cvae)")
    if label is None and not model.needs_labels:
        return model.label(x)
    return model.condition.told(label, y, len(x)).to(x.device)


def mean_and_variance(q: Distribution) -> tuple[Tensor, Tensor | None]:
    """`(N, D)` each: a sample in place of the mean if q does not know it (a flow); None for an unknown variance."""
    mean = mean_of(q)
    return (q.sample(), None) if mean is None else (mean, variance_of(q))


@torch.no_grad()
def decode(model: VAE, z: Tensor, c: Tensor | None = None) -> Tensor:
    """`(N, D), (N, context_dim) ->` means of `p(x | z, c)`, `(N, C, H, W)`, computed in parts."""
    parts = zip(z.split(100), repeat(None) if c is None else c.split(100))  # noqa: B905 (one of them may be endless)
    return torch.cat([model.decode(z, c).mean for z, c in parts])


def check_continuous(q: Distribution, what: str) -> None:
    """Raises NoMeaningError if codes are bits or categories: `what` needs points between them."""
    if is_discrete(q):
        raise NoMeaningError(
            f"what={what}: the codes are bits or categories, and the decoder has never seen points between them. "
            "what=traversal sets each to its values"
        )


def save(trained: Trained, images: Tensor, names: Sequence[str], out: Path) -> None:
    """Writes each of the images `(N, C, H, W)` in its own size, `<name>.png`; a name that is taken gets a number."""
    taken = {out.name}  # the picture that shows all of them
    for name, image in zip(names, trained.shown(images), strict=True):
        free = next(n for n in (name, *(f"{name}_{i}" for i in range(2, 10**6))) if n not in taken)
        taken.add(free)
        plots.save_image(image, out / f"{free}.png")
