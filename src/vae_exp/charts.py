"""Charts: curves of training, the KL of latent dimensions; each one figure, saved as PNG or put into a page as SVG."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from vae_exp.files import written

__all__ = ["COLOURS", "LEAST", "bars", "canvas", "curves", "heatmap", "lines", "save", "save_twice", "scores", "svg"]

DPI = 150
LEAST = 1.0  # nats: the end of an axis of KLs that are all smaller
LARGER = 1.4  # letters of a chart that a page shows narrower than the figure
CHART = {"Description": '{"is_chart": true}'}  # for the page of a run, which shows it on its own ground
TRAIN, VAL = "C0", "C1"
# Of groups: Okabe and Ito (2008), which the colour-blind tell apart, without their black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0559b", "#b87700", "#2f8fca")
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "legend.frameon": False, "axes.grid": True, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.spines.bottom": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.facecolor": "none", "svg.fonttype": "none",
}  # fmt: skip


def _theme(ink: str, line: str, train: str, val: str) -> Any:
    from cycler import cycler

    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {**STYLE, **dict.fromkeys(inks, ink), "grid.color": line, "axes.prop_cycle": cycler(color=[train, val])}


def day() -> Any:
    """The style of a chart on white, for matplotlib's `rc_context`."""
    return _theme(ink="#1b2430", line="#e2e4e0", train="#9fb8dc", val="#2459a8")


def night() -> Any:
    """The style of a chart on a dark page."""
    return _theme(ink="#e4e8ec", line="#2f3740", train="#4f6d9c", val="#8db8f5")


def save(draw: Callable[[], Any], path: Path, origin: str) -> Path:
    """Writes the figure that `draw` makes as a PNG file, on white; the file itself says who made it, in `Source`."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(day()), written(path, "wb") as file:
        draw().savefig(file, format="png", dpi=DPI, facecolor="white", metadata={"Source": origin, **CHART})
    return path


def save_twice(draw: Callable[[], Any], path: Path, origin: str) -> list[Path]:
    """Writes the figure that `draw` makes, drawn once, as PNG and as SVG, on white.

    Arguments:
        draw: Makes the figure.
        path: The files, without their ending.
        origin: Who made it; the files say so, in `Source`.
    """
    from matplotlib import rc_context

    kinds = {"png": {}, "svg": {"Date": None}}
    files = [path.with_name(f"{path.name}.{kind}") for kind in kinds]
    with rc_context({**day(), "svg.hashsalt": path.name}):
        figure = draw()
        for to, (kind, metadata) in zip(files, kinds.items(), strict=True):
            with written(to, "wb") as file:
                figure.savefig(file, format=kind, dpi=DPI, facecolor="white", metadata={"Source": origin, **metadata})
            figure.set_layout_engine("none")  # what the first file has settled
    return files


def svg(draw: Callable[[], Any]) -> dict[str, str]:
    """The figure that `draw` makes as addresses that hold an SVG picture each, by "day" and by "night"."""
    from matplotlib import rc_context

    addresses = {}
    for name, theme in (("day", day()), ("night", night())):
        file = BytesIO()
        theme |= {key: LARGER * size for key, size in STYLE.items() if key.endswith("size") and "major" not in key}
        with rc_context({**theme, "svg.hashsalt": name}):
            figure = draw()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        addresses[name] = f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode()}"
    return addresses


def curves(rows: Sequence[Mapping[str, str]], term: str, label: str, title: str = "") -> Callable[[], Any] | None:
    """`train/` and `val/` of a term over the steps; None where nothing was logged.

    Arguments:
        rows: Of `metrics.csv`.
        term: elbo, recon, kl, ...
        label: What the vertical axis shows, with its unit.
        title: Above the chart.
    """
    lines = {
        stage: [(int(row["step"]), float(row[f"{stage}/{term}"])) for row in rows if row.get(f"{stage}/{term}")]
        for stage in ("train", "val")
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return None

    def draw() -> Any:
        figure, axes = canvas(3.4, title)
        for (stage, line), colour, order in zip(lines.items(), (TRAIN, VAL), (1, 2), strict=True):
            marker = "o" if len(line) == 1 or (stage == "val" and len(line) <= 40) else ""
            if line:
                axes.plot(
                    *zip(*line, strict=True), color=colour, marker=marker, ms=3, lw=1.5, zorder=order, label=stage
                )
        # The first tenth is far from all that follows: it may leave the picture.
        last = max(step for step, _ in points)
        shown = [value for step, value in points if step >= last / 10]
        margin = 0.06 * (max(shown) - min(shown)) or 0.01 * abs(shown[0]) or 1.0
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_ylabel(label)
        figure.legend(loc="outside upper right", ncols=2)
        _steps(axes)
        return figure

    return draw


def lines(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], label: str, is_log: bool = False
) -> Callable[[], Any] | None:
    """Several columns over the steps, each with its name at the right; None where nothing was logged.

    Arguments:
        rows: Of `metrics.csv`.
        columns: What each is called, by the column.
        label: What the vertical axis shows, with its unit.
        is_log: Whether that axis is logarithmic.
    """
    known = {
        name: [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
        for column, name in columns.items()
    }
    if not any(known.values()):
        return None

    def draw() -> Any:
        figure, axes = canvas(3.6, width=7.2)
        for (name, line), colour in zip(known.items(), COLOURS, strict=False):
            if line:
                axes.plot(*zip(*line, strict=True), color=colour, lw=1.6, marker="o", ms=3, label=name)
        if is_log:
            axes.set_yscale("log")
        axes.set_ylabel(label)
        figure.legend(loc="outside right upper")
        _steps(axes)
        return figure

    return draw


def bars(
    kl: Sequence[float],
    names: Sequence[str],
    active: Sequence[bool] | None = None,
    title: str = "",
    unit: str = "nats per image",
) -> Callable[[], Any]:
    """KL of each latent dimension, the largest at the top; `active` ones, if known, in full colour.

    The axis goes to 1 nat at least: a latent that says nothing is a line, also beside others that say nothing.
    """

    def draw() -> Any:
        order = sorted(range(len(kl)), key=lambda d: -kl[d])
        figure, axes = canvas(_height(len(kl)), title)
        for colour, label, value in ((VAL, "active", True), (TRAIN, "not active", False)):
            places = [place for place, d in enumerate(order) if active is None or active[d] == value]
            if places and (value or active is not None):
                length = [kl[order[place]] for place in places]
                label = f"{label}: {len(places)}" if active is not None else ""
                axes.barh(places, length, color=colour, height=0.72, label=label)
        axes.set_ylim(len(kl) - 0.5, -0.5)
        axes.set_xlim(min(0.0, *kl), max(LEAST, 1.05 * max(kl)))
        axes.grid(visible=False, axis="y")
        _dimensions(axes, [names[d] for d in order])
        axes.set_xlabel(f"KL(q(z_d|x) || p(z_d)), {unit}")
        if active is not None and len(set(active)) == 2:
            axes.legend(loc="lower right")
        return figure

    return draw


def heatmap(kl: Sequence[Sequence[float]], steps: Sequence[int], names: Sequence[str]) -> Callable[[], Any]:
    """KL of each latent dimension `kl[validation][dimension]` over the steps; full colour is the largest, or 1 nat."""

    def draw() -> Any:
        from matplotlib.colors import to_rgb

        figure, axes = canvas(_height(len(names)))
        largest = max(LEAST, *map(max, kl))
        # As opacity, so that a dimension without information is blank on any ground.
        colour = to_rgb("#2f66b8")
        image = [[(*colour, min(max(row[d] / largest, 0.0), 1.0)) for row in kl] for d in range(len(names))]
        half = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) / 2
        extent = (steps[0] - half, steps[-1] + half, len(names) - 0.5, -0.5)
        axes.imshow(image, extent=extent, aspect="auto", interpolation="none")
        axes.grid(visible=False)
        _dimensions(axes, names)
        _steps(axes)
        return figure

    return draw


def scores(
    values: Sequence[Sequence[float]], rows: Sequence[str], label: str, xlabel: str, title: str
) -> Callable[[], Any]:
    """Numbers from 0 on, a named row of them each, with their scale; written into the cells where these are few."""

    def draw() -> Any:
        from matplotlib.figure import Figure

        width = min(3.2 + 0.45 * len(values[0]), 14)
        figure = Figure(figsize=(width, 1.4 + 0.45 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        largest = max(map(max, values))
        image = axes.imshow(values, vmin=0, vmax=largest or 1, cmap="viridis", aspect="auto")
        axes.grid(visible=False)
        figure.colorbar(image, label=label)
        if len(values[0]) <= 20:
            axes.set_xticks(range(len(values[0])))
            for row, numbers in enumerate(values):
                for column, value in enumerate(numbers):
                    colour = "black" if value > 0.6 * largest else "white"
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(xlabel)
        figure.suptitle(title, fontsize=9)
        return figure

    return draw


def canvas(height: float, title: str = "", width: float = 5.4) -> tuple[Any, Any]:
    """An empty figure with its axes, in inches."""
    # Without pyplot: no window system is asked for and no figure lives on in a global.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height + 0.3 * len(title.splitlines())), layout="constrained")
    axes = figure.add_subplot()
    if title:
        axes.set_title(title)
    return figure, axes


def _height(dimensions: int) -> float:
    return min(max(0.9 + 0.2 * dimensions, 1.8), 4.6)


def _dimensions(axes: Any, names: Sequence[str]) -> None:
    every = -(-len(names) // 20)
    axes.set_yticks(range(0, len(names), every), names[::every])


def _steps(axes: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("step")
