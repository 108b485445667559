"""Pictures: grids of images and curves, as PNG files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["curve", "grid", "kl_per_dim", "reconstructions"]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Without pyplot: no window system is asked for and no figure lives on in a global.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


def _show(axes: Any, images: Tensor, columns: int, pad: int = 1) -> tuple[int, int]:
    """Draws `(N, C, H, W)` in [0, 1], row by row; returns the rows and columns of the grid in pixels a cell."""
    from torchvision.utils import make_grid

    picture = make_grid(images.float().cpu().clamp(0, 1), nrow=columns, padding=pad, pad_value=0.5)
    axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    return images.shape[-2] + pad, images.shape[-1] + pad


def grid(images: Tensor, title: str, path: Path, rows: Sequence[str] = (), columns: int = 10) -> Path:
    """Images `(N, C, H, W)` in [0, 1], `columns` a row, with a label beside each row."""
    num_rows = -(-len(images) // columns)
    figure, axes = _figure(6, 0.5 + 5.6 * num_rows / columns * images.shape[-2] / images.shape[-1])
    height, _ = _show(axes, images, columns)
    axes.set_yticks([height * (k + 0.5) for k in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=9)
    figure.savefig(path)
    return path


def reconstructions(x: Tensor, recon: Tensor, title: str, path: Path) -> Path:
    """Images `(N, C, H, W)` in [0, 1] above their reconstructions, in one row of pairs."""
    return grid(torch.cat([x, recon]), title, path, rows=["x", "recon"], columns=len(x))


def curve(metrics: Path, title: str, bounds: str | None, folder: Path) -> Path:
    """`train/` and `val/elbo` of a `metrics.csv` over the steps; `recon` where nothing is bounded."""
    name = "recon" if bounds is None else "elbo"
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = _figure(6, 4)
    values: list[float] = []
    for key, style in ((f"train/{name}", {"alpha": 0.6}), (f"val/{name}", {"marker": "o", "markersize": 3})):
        points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
        if points:
            axes.plot(*zip(*points, strict=True), label=key, **style)
            values += [y for _, y in points]
    if values:
        # The first steps are far worse than all others: leave them off the scale, not the curve.
        values.sort(reverse=bounds is None)
        worst, best = values[len(values) // 10], values[-1]
        margin = 0.05 * (best - worst) + (1e-6 if best >= worst else -1e-6)
        axes.set_ylim(*sorted((worst - 3 * margin, best + margin)))
        axes.legend()
    axes.set_xlabel("step")
    what = "reconstruction error -log p(x|z)" if bounds is None else "ELBO"
    axes.set_ylabel(f"{what}, nats per image" + ("" if bounds is None else f" (bounds {bounds})"))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    path = folder / f"{name}.png"
    figure.savefig(path)
    return path


def kl_per_dim(kl: Sequence[float], active: Sequence[bool], title: str, path: Path) -> Path:
    """A bar a latent dimension, the largest KL first; active ones in colour."""
    figure, axes = _figure(6, 3.5)
    order = sorted(range(len(kl)), key=lambda d: -kl[d])
    for label, is_active, colour in (("used", True, "C0"), ("not used", False, "0.7")):
        places = [place for place, d in enumerate(order) if active[d] == is_active]
        if places:
            axes.bar(places, [kl[order[place]] for place in places], color=colour, label=f"{label}: {len(places)}")
    step = 1 if len(kl) <= 40 else -(-len(kl) // 25)  # as many names as can be read
    axes.set_xticks(range(0, len(kl), step), [str(d) for d in order[::step]], fontsize=8 if len(kl) <= 20 else 6)
    axes.set_xlim(-0.8, max(len(kl), 8) - 0.2)
    axes.set_ylim(0, 1.15 * max(kl) or 1)  # the legend needs room
    axes.set_xlabel("latent dimension $d$, in the order of the KL")
    axes.set_ylabel("KL(q($z_d$|x) || p($z_d$)), nats per image", fontsize=9)
    axes.set_title(title, fontsize=9)
    axes.legend()
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.savefig(path)
    return path
