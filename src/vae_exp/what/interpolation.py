"""From one image to another through the latent space.

Arcs: Shoemake (1985); White (2016), arXiv:1609.04468.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError
from vae_exp.precision import exact
from vae_exp.runs.trained import Trained
from vae_exp.what import codes

__all__ = ["interpolation", "linear", "spherical"]


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """`(D,), (D,), (T,) -> (T, D)`: `(1 - t) a + t b`."""
    return torch.lerp(a, b, t[:, None])


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """`(D,), (D,), (T,) -> (T, D)`: along the arc, directions by Shoemake (1985), lengths linear.

    If the lengths are equal it is that of White (2016). If a and b point the same way, or opposite ways so that no arc
    is the shortest, the path is linear.
    """
    start, end, t = (each.to(exact(a)) for each in (a, b, t[:, None]))
    lengths = torch.lerp(start.norm(), end.norm(), t)
    u, v = (w / w.norm().clamp(min=1e-30) for w in (start, end))
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # exact for small angles, unlike the arccos
    if angle.sin() < 1e-6 or not (u.any() and v.any()):
        return linear(a, b, t[:, 0].to(a))
    return (lengths * (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()).to(a)


def interpolation(
    trained: Trained,
    out: Path,
    pairs: Sequence[Sequence[int]] | None,
    num_steps: int,
    input: Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Writes `interpolation.png`: for each pair of images both paths between their codes; for files also each step.

    A conditional model goes from label to label together with the code.

    Raises:
        ConfigError: If pairs are not pairs of images, files are no pictures like the run's, or a label is missing.
        NoMeaningError: If codes are discrete.
    """
    model = trained.model
    _check_options(num_steps, input)
    if input is None:
        pairs = _check(pairs, trained.num_images()) if pairs else _pairs(trained)
    # From here on pair i is at 2 i and 2 i + 1.
    x, y, names = codes.given(trained, input, label, [i for pair in pairs or () for i in pair])
    q = model.code(x, y)
    codes.check_continuous(q, "interpolation")
    ends, _ = codes.mean_and_variance(q)
    c = model.context(y)
    t = torch.linspace(0, 1, num_steps, device=x.device)
    shown_y = trained.data.splits[trained.split].y[[int(name) for name in names]] if y is None and not input else y
    rows, images = [], []
    for a in range(0, len(x), 2):
        b = a + 1
        for path in (spherical, linear):
            steps = codes.decode(model, path(ends[a], ends[b], t), None if c is None else linear(c[a], c[b], t))
            images.append(torch.cat([x[a : a + 1], steps, x[b : b + 1]]))
            rows.append(f"{_contents(trained, names, shown_y, a)}\n{path.__name__}")
            if input is not None:
                each = [f"{names[a]}_{names[b]}_{path.__name__}_{i}" for i in range(num_steps)]
                codes.save(trained, steps, each, out)
    source = "files" if input is not None else f"{trained.split_title} images"
    title = f"{trained.cfg.name}\ninterpolation between the codes of {source}"
    heads = ["x", *(f"{share:.2g}" for share in t.tolist()), "x"]
    shown = trained.shown(torch.cat(images))
    plots.grid(shown, title, out / "interpolation.png", rows=rows, columns=len(heads), heads=heads)
    return {} if pairs is None or input is not None else {"pairs": pairs}


def _check_options(num_steps: int, paths: Sequence[str] | None) -> None:
    if num_steps < 2:
        raise ConfigError(f"num_steps={num_steps}: at least 2 are needed, both ends")
    if paths is not None and (isinstance(paths, str) or len(paths) != 2):
        raise ConfigError(f"input={paths}: two files are needed, input=[a.png,b.png]")


def _contents(trained: Trained, names: Sequence[str], y: Tensor | None, a: int) -> str:
    """What a row shows, of images a and a + 1: their labels, or what they are called if a label is missing."""
    pair = None if y is None else y[a : a + 2]
    if pair is None or (pair.dim() == 1 and (pair < 0).any()):
        return " → ".join(names[a : a + 2])
    first, *rest = dict.fromkeys(map(trained.data.condition.caption, pair))
    arrow = " → " if pair.dim() == 1 else " →\n"  # several attributes need a line
    return arrow.join([first, *(word.removeprefix("y = ") for word in rest)])


def _check(pairs: Sequence[Sequence[int]], available: int) -> list[list[int]]:
    for pair in pairs:
        if isinstance(pair, int) or len(pair) != 2 or not all(0 <= i < available for i in pair):
            raise ConfigError(f"pairs={pairs}: pairs of images 0 to {available - 1} are needed, such as [[0,1],[2,3]]")
    return [list(pair) for pair in pairs]


def _pairs(trained: Trained) -> list[list[int]]:
    """At most five pairs: from class to class, for a conditional model within a class; without labels, neighbours."""
    num_images = trained.num_images()
    y = trained.data.splits[trained.split].y
    if y.dim() > 1:
        y = torch.full((num_images,), -1)  # attributes are no classes
    of_class = [(y == k).nonzero()[:2, 0].tolist() for k in y[y >= 0].unique().tolist()]
    if trained.model.num_classes:
        pairs = [two for two in of_class if len(two) == 2]
    else:
        firsts = [one[0] for one in of_class]
        pairs = [list(pair) for pair in zip(firsts[::2], firsts[1::2], strict=False)]
    return pairs[:5] or [[i, i + 1] for i in range(0, min(num_images - 1, 10), 2)]
