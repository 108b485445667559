"""Pictures: grids of images, histograms and scatter plots, as PNG files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vae_exp.files import written
from vae_exp.precision import on_cpu

__all__ = [
    "bars",
    "captioned",
    "correlations",
    "grid",
    "histogram",
    "reconstructions",
    "save_image",
    "scatter",
    "table",
]

DPI = 150


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # Without pyplot, no window system is needed and no figure stays in a global variable.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path, **about: Any) -> Path:
    """Writes a figure as PNG; the file itself says what is in it, in `Description`, for the page of the run."""
    with written(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Description": json.dumps(about)})
    return path


def _show(axes: Any, images: Tensor, columns: int, pad: int = 1) -> tuple[int, int]:
    """Draws `(N, C, H, W)` in [0, 1], row by row; returns the height and width of a cell of the grid, in pixels."""
    from torchvision.utils import make_grid

    zoom = max(1, 28 // images.shape[-1])  # next to a small image, the lines of the grid would be too wide
    images = _in_colour(images).repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    picture = make_grid(images, nrow=columns, padding=pad, pad_value=0.5)
    axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    return images.shape[-2] + pad, images.shape[-1] + pad


def _in_colour(images: Tensor) -> Tensor:
    """`(..., C, H, W)` as pixels in [0, 1] on the CPU: grey, or red, green and blue; for another C, the first three."""
    images = images.float().cpu().clamp(0, 1)
    channels = images.shape[-3]
    if channels == 2:  # red and green
        return torch.cat([images, torch.zeros_like(images[..., :1, :, :])], dim=-3)
    return images[..., : 3 if channels > 3 else channels, :, :]


def grid(
    images: Tensor, title: str, path: Path, rows: Sequence[str] = (), columns: int = 10, heads: Sequence[str] = ()
) -> Path:
    """Images `(N, C, H, W)` in [0, 1], `columns` in each row, with a label for each row and for each column."""
    height, width = images.shape[-2:]
    num_rows = -(-len(images) // columns)
    # Inches: 10 columns are as wide as a page, and no cell is too small for its pixels.
    cell = max(min(5.6 / columns, 0.9), 0.56, width / DPI)
    beside = 0.07 * max((len(line) for row in rows for line in row.split("\n")), default=0)
    above = 0.15 + 0.17 * len(title.splitlines()) + (0.2 if heads else 0)
    figure, axes = _figure(max(6, 0.4 + beside + cell * columns), above + cell * num_rows * height / width)
    down, across = _show(axes, images, columns)
    axes.set_yticks([down * (k + 0.5) for k in range(len(rows))], rows, fontsize=8)
    axes.set_xticks([across * (k + 0.5) for k in range(len(heads))], heads, fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_title(title, fontsize=9)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what was settled
    left, low, right, high = axes.get_window_extent().extents
    height = int(figure.bbox.height)  # of the file
    box = [left, height - high, right, height - low]
    size = axes.images[0].get_size()[::-1]
    return _save(figure, path, title=title, rows=list(rows), heads=list(heads), box=box, size=size)


def reconstructions(x: Tensor, recon: Tensor, title: str, path: Path) -> Path:
    """Images `(N, C, H, W)` in [0, 1] above their reconstructions, ten pairs in each row."""
    columns = min(10, len(x))
    missing = torch.ones(-len(x) % columns, *x.shape[1:], device=x.device)
    lines = [torch.cat([images.to(missing), missing]).split(columns) for images in (x, recon)]
    pairs = [line for pair in zip(*lines, strict=True) for line in pair]
    return grid(torch.cat(pairs), title, path, rows=["x", "recon"] * len(lines[0]), columns=columns)


def captioned(images: Tensor, captions: Sequence[str], title: str, path: Path, columns: int = 10) -> Path:
    """Images `(N, C, H, W)` in [0, 1], each with its own caption above it."""
    num_rows, shape = -(-len(images) // columns), images.shape[-2] / images.shape[-1]
    figure, axes = _figure(7, 0.5 + num_rows * (0.4 + 6.6 / columns * shape))
    axes.remove()
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes = figure.add_subplot(num_rows, columns, i + 1)
        _show(axes, image[None], 1, pad=0)
        axes.set_title(caption, fontsize=7, pad=2)
    figure.suptitle(title, fontsize=9)
    return _save(figure, path, title=title)


def histogram(samples: dict[str, Tensor], x_name: str, title: str, path: Path, marked: dict[str, float]) -> Path:
    """Histograms of sets of numbers `(N,)`, in % of each set, with single values marked by name. The outermost 0.5 %
    may be cut off.
    """
    figure, axes = _figure(7, 4)
    values = {name: on_cpu(sample) for name, sample in samples.items()}
    ends = [sample.quantile(torch.tensor([0.005, 0.995], dtype=sample.dtype)) for sample in values.values()]
    low, high = (float(f(torch.cat([*ends, torch.tensor([*marked.values()])]))) for f in (torch.min, torch.max))
    bins = torch.linspace(low, high if high > low else low + 1, 81).tolist()
    for name, sample in values.items():
        weights = [100 / len(sample)] * len(sample)
        axes.hist(sample.numpy(), bins=bins, weights=weights, alpha=0.55, label=f"{name} ({len(sample)} images)")
    for i, (name, value) in enumerate(marked.items()):
        axes.axvline(value, color=f"C{len(samples) + i}", linestyle="--", label=f"{name}: {value:.1f}")
    axes.set_xlabel(x_name)
    axes.set_ylabel("% of the images")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    return _save(figure, path, title=title, is_chart=True)


def save_image(image: Tensor, path: Path) -> Path:
    """A single image `(C, H, W)` in [0, 1], pixel for pixel; if C is not 1 or 3, its first channels."""
    levels = (_in_colour(image) * 255).round().byte()
    with written(path, "wb") as file:
        Image.fromarray(levels.permute(1, 2, 0).squeeze(-1).numpy()).save(file, "PNG")
    return path


def scatter(
    points: Tensor,
    y: Tensor,
    title: str,
    axis_names: tuple[str, str],
    path: Path,
    marked: dict[str, Tensor],
    name: str = "y",
) -> Path:
    """Points `(N, 2)` coloured by their labels `(N,)`, -1 for none, or by one attribute; single points `(2,)` are
    marked by name.
    """
    figure, axes = _figure(7, 6)
    points, y = points.float().cpu(), y.cpu()
    classes = y.unique().tolist()
    are_whole = bool((y == y.round()).all())
    size = min(20.0, 4 + 8000 / max(len(points), 1))  # area of a dot
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.7}
    if len(classes) <= 10 and are_whole:
        for k in classes:
            chosen = points[y == k]
            label = f"{name} = {k:g}" if k != -1 else None
            axes.scatter(*chosen.T.numpy(), color=f"C{max(int(k), 0) % 10}", label=label, **style)
    else:  # too many classes for a legend
        seen = axes.scatter(*points.T.numpy(), c=y.numpy(), cmap="turbo", **style)
        figure.colorbar(seen, label="label y" if name == "y" else name)
    for name, point in marked.items():
        axes.scatter(*point.tolist(), marker="*", s=150, color="black", edgecolors="white")
        axes.annotate(name, point.tolist(), xytext=(7, 7), textcoords="offset points", fontsize=9)
    if len(classes) <= 10 and are_whole and max(classes) >= 0:
        for handle in axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False).legend_handles:
            handle.set(sizes=[30], alpha=1)
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    return _save(figure, path, title=title, is_chart=True)


def bars(columns: dict[str, tuple[list[str] | None, dict[str, Any]]], title: str, path: Path) -> Path:
    """A histogram for each column of a table, in % of the entries that are there.

    Arguments:
        columns: By name, the categories (None for numbers), and by the name of a set the entries, an array `(N,)` of
            numbers or of places among the categories.
        title: Above all of them.
        path: The PNG.
    """
    import numpy as np

    across = min(4, len(columns))
    down = -(-len(columns) // across)
    figure, first = _figure(2.6 * across + 0.4, 1.9 * down + 0.8)
    first.remove()
    for i, (name, (categories, sets)) in enumerate(columns.items()):
        axes = figure.add_subplot(down, across, i + 1)
        known = {label: x[~np.isnan(x)] for label, x in sets.items()}
        everything = np.concatenate([*known.values()])
        if categories is None:
            low, high = np.percentile(everything, [0.5, 99.5])
            edges = np.linspace(low, high if high > low else low + 1, 31)
        else:
            edges = np.arange(len(categories) + 1) - 0.5
            if len(categories) <= 6:
                axes.set_xticks(range(len(categories)), [text[:8] for text in categories])
        for label, x in known.items():
            axes.hist(x, bins=edges, weights=np.full(len(x), 100 / max(len(x), 1)), alpha=0.55, label=label)
        axes.set_title(name[:28], fontsize=8)
        axes.tick_params(labelsize=6)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=9)
    return _save(figure, path, title=title, is_chart=True)


def correlations(matrices: dict[str, Any], names: Sequence[str], title: str, path: Path) -> Path:
    """Correlation matrices `(D, D)` of the same columns, side by side, from -1 (blue) to 1 (red)."""
    figure, axes = _figure(4.2 * len(matrices) + 0.6, 4.6)
    axes.remove()
    for i, (label, matrix) in enumerate(matrices.items()):
        axes = figure.add_subplot(1, len(matrices), i + 1)
        seen = axes.imshow(matrix, cmap="coolwarm", vmin=-1, vmax=1)
        axes.set_title(label, fontsize=8)
        shown = range(len(names)) if len(names) <= 32 else []
        axes.set_xticks(shown, [names[k][:16] for k in shown], rotation=90, fontsize=5)
        axes.set_yticks(shown, [names[k][:16] for k in shown] if i == 0 else [""] * len(shown), fontsize=5)
    figure.colorbar(seen, ax=figure.axes, shrink=0.7)
    figure.suptitle(title, fontsize=9)
    return _save(figure, path, title=title, is_chart=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str, path: Path) -> Path:
    """Rows of text under the names of their columns, of which a page holds the first twelve."""
    most = 12
    heads = [head[:14] for head in heads[:most]] + ([f"and {len(heads) - most} more"] if len(heads) > most else [])
    cells = [[text[:14] for text in row[:most]] + ([""] if len(row) > most else []) for row in rows]
    figure, axes = _figure(max(5, 0.95 * len(heads)), 0.6 + 0.22 * len(cells))
    axes.set_axis_off()
    drawn = axes.table(cells, colLabels=heads, loc="center", cellLoc="right", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(6)
    axes.set_title(title, fontsize=9)
    return _save(figure, path, title=title, is_chart=True)
