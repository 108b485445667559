"""Charts of a page, as SVG whose colours are the page's own, by day and by night."""

import csv
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from zlib import crc32

from markupsafe import Markup, escape

__all__ = ["bars", "curves", "heatmap", "read_csv"]

# Stand-ins that matplotlib takes for colours, and the variables of the page's style that they become.
INK, GRID, TRAIN, VAL = "#010101", "#020202", "#030303", "#040404"
COLOURS = {INK: "var(--ink)", GRID: "var(--line)", TRAIN: "var(--train)", VAL: "var(--val)"}


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def curves(rows: Sequence[Mapping[str, str]], term: str) -> Markup | None:
    """`train/` and `val/` of a term over the steps; None where nothing was logged."""
    lines = {
        stage: [(int(row["step"]), float(row[f"{stage}/{term}"])) for row in rows if row.get(f"{stage}/{term}")]
        for stage in ("train", "val")
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    figure, axes = _figure(2.5)
    for (stage, line), colour, order in zip(lines.items(), (TRAIN, VAL), (1, 2), strict=True):
        marker = "o" if stage == "val" and len(line) <= 40 else "" if len(line) > 1 else "o"
        axes.plot(*zip(*line, strict=True), color=colour, marker=marker, ms=2.5, lw=1.4, zorder=order) if line else None
    # The first tenth is far from all that follows: it may leave the picture.
    last = max(step for step, _ in points)
    shown = [value for step, value in points if step >= last / 10]
    margin = 0.06 * (max(shown) - min(shown)) or 0.01 * abs(shown[0]) or 1.0
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.grid(color=GRID, lw=0.6)
    _steps(axes)
    return _svg(figure, f"train/{term} and val/{term} over the steps, at last {points[-1][1]:.2f}")


def heatmap(kl: Sequence[Sequence[float]], steps: Sequence[int], names: Sequence[str]) -> Markup:
    """KL of each latent dimension `kl[validation][dimension]` over the steps, from blank to the largest of all."""
    from matplotlib.colors import to_rgb

    figure, axes = _figure(_height(len(names)))
    largest = max(max(max(row) for row in kl), 1e-12)
    # As opacity, so that a dimension without information is blank on any ground.
    red, green, blue = to_rgb("#2f66b8")
    image = [[(red, green, blue, min(max(row[d] / largest, 0.0), 1.0)) for row in kl] for d in range(len(names))]
    half = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) / 2
    extent = (steps[0] - half, steps[-1] + half, len(names) - 0.5, -0.5)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="none")
    _dimensions(axes, names)
    _steps(axes)
    return _svg(figure, f"KL of {len(names)} latent dimensions over the steps, at most {largest:.2f} nats")


def bars(kl: Sequence[float], names: Sequence[str]) -> Markup:
    """KL of each latent dimension."""
    figure, axes = _figure(_height(len(names)))
    axes.barh(range(len(names)), kl, color=VAL, height=0.72)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left=min(0.0, *kl))
    axes.grid(axis="x", color=GRID, lw=0.6)
    _dimensions(axes, names)
    axes.set_xlabel("nats per image")
    return _svg(figure, f"KL of {len(names)} latent dimensions: {names[0]} has the most, {kl[0]:.2f} nats per image")


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, colors=INK, pad=4)
    axes.xaxis.label.set(size=8.5, color=INK)
    return figure, axes


def _height(dimensions: int) -> float:
    return min(max(0.7 + 0.15 * dimensions, 1.6), 4.2)


def _dimensions(axes: Any, names: Sequence[str]) -> None:
    every = -(-len(names) // 24)
    axes.set_yticks(range(0, len(names), every), names[::every])


def _steps(axes: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("step")


def _svg(figure: Any, label: str) -> Markup:
    """The picture as it stands within a page: one element, text as text, ids that no other picture has."""
    from matplotlib import rc_context

    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = svg[svg.index("</defs>") + len("</defs>") :]  # after a style that would be the whole page's
    own = f"c{crc32(svg.encode()):x}"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {box[0]}>{svg}')  # noqa: S704 of our own making
