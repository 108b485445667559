"""The figures of a section, in the style of `vae_exp.charts`: curves, rate and distortion, parallel coordinates."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, log10
from statistics import median
from typing import Any

from vae_exp.charts import COLOURS, canvas
from vae_exp.comparison.curves import Curves
from vae_exp.comparison.groups import Group, Section

__all__ = ["MOST", "NAMES", "band", "coordinates", "figures", "of_plane", "parallel", "plane", "spread"]

MOST = 12  # groups in a figure: the best ones
NAMES = {"elbo": "ELBO", "kl": "KL", "recon": "Reconstruction", "iwae": "IWAE bound", "error": "Error"}
AXIS = {"step": "step", "epoch": "epoch", "seconds": "seconds of training"}
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)))
WIDTH, HEIGHT = 7.2, 3.8
LEADER = 0.035  # of the axes: from where a line ends to its label
LONGEST = 44  # letters of a label


def figures(section: Section, found: Mapping[Group, Curves], axis: str) -> dict[str, Callable[[], Any]]:
    """The figures of a section by name, those for which there are numbers.

    Arguments:
        section: Its groups, the best first.
        found: The curves of each group that has any.
        axis: step, epoch or seconds: under the curves.
    """
    drawn = {term: band(section, found, term, axis) for term in NAMES}
    drawn |= {"rate_distortion": plane(section), "parallel": parallel(section)}
    return {name: draw for name, draw in drawn.items() if draw is not None}


def look(place: int) -> dict[str, Any]:
    """Colour and dashes of the group in this place of the ranking: six colours, then the same ones with dashes."""
    return {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place // len(COLOURS) % len(DASHES)]}


def band(section: Section, found: Mapping[Group, Curves], term: str, axis: str) -> Callable[[], Any] | None:
    """`val/` of a term over training: the mean of each group, in the band from its lowest seed to its highest.

    Arguments:
        section: Its groups, the best first.
        found: The curves of each group that has any.
        term: elbo, kl, ...
        axis: step, epoch or seconds.
    """
    lines = []
    for place, group in enumerate(section.groups[:MOST]):
        own = found.get(group)
        if own is not None and axis in own.axes and term in own.mean:
            columns = own.axes[axis], own.mean[term], own.low[term], own.high[term]
            rows = [row for row in zip(*columns, strict=True) if all(map(isfinite, row))]
            if rows:
                lines.append((place, section.name(group), rows))
    if not lines:
        return None

    def draw() -> Any:
        figure, axes = canvas(HEIGHT, _title(section), WIDTH)
        for place, _, rows in lines:
            x, mean, low, high = zip(*rows, strict=True)
            axes.fill_between(x, low, high, color=look(place)["color"], alpha=0.16, lw=0)
            axes.plot(x, mean, lw=1.6, marker="o" if len(x) == 1 else "", ms=3, **look(place))
        last = max(rows[-1][0] for _, _, rows in lines)
        is_near = near([rows[-1][1] for _, _, rows in lines])
        shown = [row for _, _, rows in lines if is_near(rows[-1][1]) for row in rows if row[0] >= last / 10]
        _limits(axes.set_ylim, [value for row in shown for value in row[1:]])
        axes.set_xlim(0, last)
        _engineering(axes.xaxis)
        axes.set_xlabel(AXIS[axis])
        axes.set_ylabel(f"share of the {section.unit}s" if term == "error" else f"val/{term}, nats per {section.unit}")
        _labels(axes, [(place, name, rows[-1][0] / last, rows[-1][1]) for place, name, rows in lines])
        return figure

    return draw


def plane(section: Section) -> Callable[[], Any] | None:
    """The rate-distortion plane (Alemi et al., 2018): KL against recon, a dot for each seed, a ring for the mean.

    On a diagonal the ELBO is the same.
    """
    stage = section.metric.partition("/")[0]
    points = []
    for place, group in enumerate(section.groups[:MOST]):
        each = of_plane(group, stage)
        if each:
            points.append((place, section.name(group), each))
    if not points:
        return None

    def draw() -> Any:
        from matplotlib.ticker import MaxNLocator

        figure, axes = canvas(4.6, _title(section), WIDTH)
        for d, set_limits in enumerate((axes.set_xlim, axes.set_ylim)):
            column = [point[d] for _, _, each in points for point in each]
            _limits(set_limits, list(filter(near(column), column)))
        axes.grid(visible=False)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for elbo in MaxNLocator(8).tick_values(-right - high, -left - low):
            axes.plot([left, right], [-elbo - left, -elbo - right], color="#9aa2ab", alpha=0.35, lw=0.7, zorder=0)
            x = max(left, -elbo - high) + 0.012 * (right - left)  # where the diagonal enters, at the left or the top
            if left <= x < right - 0.1 * (right - left) and low + 0.06 * (high - low) < -elbo - x:
                text = f"{elbo:g}"
                axes.text(x, -elbo - x, text, fontsize=7, alpha=0.55, va="top", ha="left", zorder=0)
        ends = []
        for place, name, each in points:
            x, y = (sum(point[d] for point in each) / len(each) for d in (0, 1))
            axes.scatter(*zip(*each, strict=True), s=14, color=look(place)["color"], alpha=0.55, lw=0)
            axes.plot([x], [y], "o", ms=8, mfc="none", mew=1.6, color=look(place)["color"])
            ends.append((place, name, min((x - left) / (right - left), 1.0), y))
        axes.set_xlabel(f"rate: {stage}/kl, nats per {section.unit}")
        axes.set_ylabel(f"distortion: {stage}/recon, nats per {section.unit}")
        _labels(axes, ends)
        return figure

    return draw


def of_plane(group: Group, stage: str) -> list[tuple[float, float]]:
    """KL and recon of each seed that has both."""
    kl, recon = (group.numbers.get(f"{stage}/{term}", {}) for term in ("kl", "recon"))
    return [(kl[seed], recon[seed]) for seed in kl if seed in recon]


def coordinates(section: Section, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The axes of parallel coordinates: what tells the groups apart, then KL, recon and what ranks them.

    Each has its `title`, its `ticks` as pairs of a place from 0 to 1 and a text, and `places`: one for each run of the
    groups, None where it has no such number.
    """
    stage = section.metric.partition("/")[0]
    runs = [(group, run) for group in groups for run in group.runs]
    axes = []
    for key in section.keys:
        values = [group.labels[key] for group, _ in runs]
        axes.append({"title": key.removesuffix("._target_").removesuffix(".source"), **_axis_of(values)})
    for metric in dict.fromkeys([f"{stage}/kl", f"{stage}/recon", section.metric]):
        numbers = [run.numbers.get(metric) for _, run in runs]
        if any(number is not None for number in numbers):
            axes.append({"title": metric, **_scale(numbers, is_log=False)})
    return axes


def _axis_of(values: Sequence[str]) -> dict[str, Any]:
    """An axis of words, or of numbers if all are: each of a few has a tick, and far apart ones are on a log scale."""
    numbers = [_number(value) for value in values]
    known = sorted({number for number in numbers if number is not None})
    if known and all(number is not None or not value for number, value in zip(numbers, values, strict=True)):
        is_log = known[0] > 0 and known[-1] / known[0] >= 8
        return _scale(numbers, is_log, known if len(known) <= 8 else None)
    words = sorted(set(values), key=lambda word: (word == "", word))
    place = {word: 0.5 if len(words) == 1 else 1 - index / (len(words) - 1) for index, word in enumerate(words)}
    ticks = [(place[word], word or "none") for word in words]
    return {"ticks": ticks if len(ticks) <= 20 else ticks[:: len(ticks) // 10], "places": [place[v] for v in values]}


def _scale(numbers: Sequence[float | None], is_log: bool, at: Sequence[float] | None = None) -> dict[str, Any]:
    known = [number for number in numbers if number is not None]
    inside = known if at else list(filter(near(known), known))
    low, high = min(inside), max(inside)

    def place(number: float) -> float:
        if low == high:
            return 0.5
        share = log10(number / low) / log10(high / low) if is_log else (number - low) / (high - low)
        return min(max(share, 0.0), 1.0)

    ends = ("≤ " if min(known) < low else "", low), ("≥ " if max(known) > high else "", high)
    ticks = [("", number) for number in at] if at else list(dict.fromkeys(ends))
    return {
        "ticks": [(place(number), f"{sign}{number:.{6 if at else 4}g}") for sign, number in ticks],
        "places": [None if number is None else place(number) for number in numbers],
    }


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def parallel(section: Section) -> Callable[[], Any] | None:
    """Parallel coordinates (Inselberg, 1985): a line for each run, through its config to its numbers."""
    groups = section.groups[:MOST]
    columns = coordinates(section, groups)
    if not section.keys or not columns or len(groups) < 2:
        return None

    def draw() -> Any:
        figure, axes = canvas(HEIGHT, _title(section), WIDTH + 0.8 * max(0, len(columns) - 4))
        axes.grid(visible=False)
        axes.set_axis_off()
        axes.set_xlim(0, len(columns) - 1)
        axes.set_ylim(-0.06, 1.12)
        for x, column in enumerate(columns):
            axes.plot([x, x], [0, 1], color="#9aa2ab", lw=0.8, zorder=0, clip_on=False)
            axes.text(x, 1.1, column["title"], ha="center", va="bottom", fontsize=8.5)
            for place, text in column["ticks"]:
                box = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1.0}
                axes.text(x - 0.03, place, text, ha="right", va="center", fontsize=7.5, zorder=3, bbox=box)
        row, ends = 0, []
        for rank, group in enumerate(groups):
            lasts = []
            for _ in group.runs:
                line = [(x, column["places"][row]) for x, column in enumerate(columns)]
                whole = [(x, y) for x, y in line if y is not None]
                axes.plot(*zip(*whole, strict=True), lw=1.1, alpha=0.8, clip_on=False, **look(rank))
                lasts += [y for x, y in whole if x == len(columns) - 1]
                row += 1
            if lasts:
                ends.append((rank, section.name(group), 1.0, sum(lasts) / len(lasts)))
        _labels(axes, ends)
        return figure

    return draw


def near(values: Sequence[float]) -> Callable[[float], bool]:
    """Whether a number belongs to the picture of some: what diverged, ten times as far off as they are large, not."""
    middle = median(values)
    return lambda value: abs(value - middle) <= 10 * max(abs(middle), 10.0)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `gap` apart or as far as fits between `low` and `high`."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    # Less `gap` for each label below, places only have to rise: isotonic regression, by pooling adjacent violators.
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        blocks.append((wanted[index] - gap * rank, 1))
        while len(blocks) > 1 and blocks[-1][0] < blocks[-2][0]:
            (above, many), (below, few) = blocks.pop(), blocks.pop()
            blocks.append(((above * many + below * few) / (many + few), many + few))
    rising = [min(max(place, low), high - gap * (len(order) - 1)) for place, count in blocks for _ in range(count)]
    found = [0.0] * len(order)
    for rank, (place, index) in enumerate(zip(rising, order, strict=True)):
        found[index] = place + gap * rank
    return found


def _title(section: Section) -> str:
    """What a figure leaves out."""
    count = len(section.groups)
    return f"the best {MOST} of {count} groups" if count > MOST else ""


def _labels(axes: Any, ends: Sequence[tuple[int, str, float, float]]) -> None:
    """A name at the right of the axes for each end, `(rank, name, x as a share of the axes, y)`, none over another."""
    low, high = axes.get_ylim()
    height = axes.figure.get_figheight() * 72 * 0.8
    shares = [min(max((y - low) / (high - low), 0.0), 1.0) for _, _, _, y in ends]
    for (rank, name, x, y), at, share in zip(ends, spread(shares, 11 / height, 0.0, 1.0), shares, strict=True):
        colour = look(rank)["color"]
        axes.plot(
            [x, 1.0, 1 + LEADER], [share, at if x < 0.97 else share, at],
            transform=axes.transAxes, color=colour, lw=0.6, alpha=0.6, clip_on=False, zorder=0,
        )  # fmt: skip
        text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        text += f" {'↓' if y < low else '↑'} {y:.3g}" if not low <= y <= high else ""
        axes.text(1 + LEADER + 0.008, at, text, transform=axes.transAxes, color=colour, fontsize=8, va="center")


def _limits(set_limits: Callable[[float, float], Any], values: Sequence[float]) -> None:
    margin = 0.06 * (max(values) - min(values)) or 0.01 * abs(values[0]) or 1.0
    set_limits(min(values) - margin, max(values) + margin)


def _engineering(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True))
    axis.set_major_formatter(EngFormatter(sep=""))
