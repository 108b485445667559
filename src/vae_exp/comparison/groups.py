"""What differs between runs and what compares: sections that are never put side by side, groups of seeds in them."""

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vae_exp.comparison.names import differing, is_word, reader, short, telling, text, typed
from vae_exp.comparison.read import Run
from vae_exp.comparison.statistics import Interval, difference, interval
from vae_exp.config import ConfigError
from vae_exp.metrics.table import bounded
from vae_exp.overrides import nearest

__all__ = ["Group", "Section", "is_better_lower", "sections"]

LOWER = ("kl", "recon", "nll", "error")
RANKING = ("test/elbo", "val/elbo", "test/recon", "val/recon")


class Group:
    """Runs that differ in their seed alone, or in the fold they are tested on, too.

    Arguments:
        labels: What tells the group from the others, in words, by key; empty where a key is not in its config.
        runs: Its runs, each of another seed or fold.
    """

    def __init__(self, labels: dict[str, str], runs: list[Run]) -> None:
        self.labels = labels
        self.runs = sorted(runs, key=lambda run: (run.seed, run.repeat[1] or 0))

    @cached_property
    def numbers(self) -> dict[str, dict[tuple[int, int | None], float]]:
        """By metric, the number of each seed and fold that has it."""
        names = dict.fromkeys(name for run in self.runs for name in run.numbers)
        return {name: {run.repeat: run.numbers[name] for run in self.runs if name in run.numbers} for name in names}

    def interval(self, metric: str) -> Interval | None:
        """The mean of a metric over seeds and folds; None if no run has it."""
        return interval(list(self.numbers.get(metric, {}).values()))


class Section(NamedTuple):
    """Runs whose numbers compare: the same bound on the same images.

    Arguments:
        title: What is bounded, of which images.
        why: How it differs from the first section; empty for the first.
        shared: What is the same in all its groups, though not in all runs.
        keys: What tells its groups apart.
        groups: The best first.
        metric: What ranks them.
        notes: What else a reader needs to know.
    """

    title: str
    why: str
    shared: dict[str, str]
    keys: list[str]
    groups: list[Group]
    metric: str
    notes: list[str]

    @property
    def unit(self) -> str:
        """What one of the data is: an image, or the row of a table."""
        return _unit(self.groups[0])

    @property
    def metrics(self) -> list[str]:
        """Those that a group has: what ranks first, then test and validation; ELBO, KL, recon, the others by name."""
        order = ("elbo", "kl", "recon")

        def place(name: str) -> tuple[bool, int, str]:
            stage, _, term = name.partition("/")
            return stage != "test", order.index(term) if term in order else len(order), term

        names = sorted({name for group in self.groups for name in group.numbers}, key=place)
        return list(dict.fromkeys([self.metric, *names])) if self.metric in names else names

    def name(self, group: Group) -> str:
        """The group in a few words, such as `beta_vae, beta=4`."""
        keys = self.keys or list(self.shared)
        names = short(keys)
        words = [
            group.labels[key] if is_word(key, group.labels[key]) else f"{names[key]}={group.labels[key]}"
            for key in keys
            if group.labels[key]
        ]
        return ", ".join(words) or "all runs"

    def difference(self, group: Group) -> Interval | None:
        """How far a group is above the best one in what ranks them, over the seeds of both; None for the best one."""
        best, own = (of.numbers.get(self.metric, {}) for of in (self.groups[0], group))
        return None if group is self.groups[0] else difference(own, best)


def is_better_lower(metric: str) -> bool:
    """Whether a metric, such as `test/nll(K=5000)`, is better when it is lower."""
    return metric.partition("/")[2].partition("(")[0] in LOWER


def sections(runs: Sequence[Run], by: Sequence[str], rank: str | None) -> tuple[list[Section], dict[Path, str]]:
    """Runs in sections that compare and groups that differ in the seed alone, the best group first.

    What tells groups apart is named by the keys of `by`, then by choices (`model=cvae`), then by keys of the config,
    those that were typed first; each only if it tells more groups apart than those before it. Whatever is named, no
    group holds runs that differ in more than the seed.

    Arguments:
        runs: At least one.
        by: Groups of conf/ or keys of the config.
        rank: The metric that ranks the groups, `test/nll` also for the one `test/nll(K=...)`; None for the ELBO of the
            test, or what comes next to it.

    Returns:
        The sections, and the reason for each run that is left out.

    Raises:
        ConfigError: If no run has a key of `by`, or none or several metrics are what ranks.
    """
    value = reader(runs)
    for key in by:
        if not any(value(run, key) is not None for run in runs):
            known = {name for run in runs for name in (*run.config, *run.record.get("choices", ()))}
            raise ConfigError(f"by={key}: no run has this key{nearest(key, known)}")
    metric = rank and _ranking(rank, {name for run in runs for name in run.numbers})
    varied = differing(runs)
    cells: dict[tuple[tuple[str, ...], Hashable], list[Run]] = {}
    for run in runs:
        content = (*(run.config.get(key) for key in varied), *(value(run, key) for key in by))
        cells.setdefault((_compares(run), content), []).append(run)
    keys = telling(cells, by, varied, value)
    repeats: dict[Path, str] = {}
    found: dict[tuple[str, ...], list[Group]] = {}
    for (compares, _), members in cells.items():
        labels = {key: text(value(members[0], key)) for key in keys}
        group = Group(labels, _one_each_seed(members, repeats))
        found.setdefault(_of_folds(compares, group), []).append(group)
    largest_first = sorted(found, key=lambda compares: -sum(len(group.runs) for group in found[compares]))
    first = largest_first[0]
    return [_section(compares, first, found[compares], keys, metric) for compares in largest_first], repeats


def _ranking(rank: str, known: set[str]) -> str:
    """The one metric that is meant.

    Raises:
        ConfigError: If there is none, or there are several.
    """
    meant = [rank] if rank in known else [name for name in sorted(known) if name.partition("(")[0] == rank]
    if len(meant) != 1:
        choices = ", ".join(meant or sorted(known))
        raise ConfigError(f"rank={rank}: {'several metrics are' if meant else 'no run has'} this. There are {choices}")
    return meant[0]


def _section(
    compares: tuple[str, ...], first: tuple[str, ...], groups: list[Group], keys: Sequence[str], metric: str | None
) -> Section:
    notes = []
    known = {name for group in groups for name in group.numbers}
    by_default = next((name for name in RANKING if name in known), min(known, default="test/elbo"))
    if metric is not None and metric not in known:
        notes.append(f"No run here has {metric}: the ranking is by {by_default}.")
    metric = by_default if metric is None or metric not in known else metric
    sign = 1 if is_better_lower(metric) else -1

    def place(group: Group) -> tuple[bool, float]:
        found = group.interval(metric)
        return found is None, 0.0 if found is None else sign * found.mean

    groups = sorted(groups, key=place)
    unit = _unit(groups[0])
    trained_on = {(run.repeat[1], run.record["data"].get("train")) for group in groups for run in group.runs}
    if len(trained_on) > len({fold for fold, _ in trained_on}):
        notes.append(f"The training {unit}s differ between runs; those that are scored are the same.")
    if any(run.repeat[1] is not None for group in groups for run in group.runs):
        notes.append(
            f"Means and intervals are over folds, each tested on {unit}s of its own, so single folds are never ranked. "
            f"Their training {unit}s overlap: the intervals are rather too short."
        )
    notes += _origins([run for group in groups for run in group.runs])
    varied = differing([group.runs[0] for group in groups])
    words = dict.fromkeys(key for group in groups for run in group.runs for key in typed(run))
    more = [key for key in words if key not in keys and key in varied]
    if more:
        notes.append(f"These groups also differ in {', '.join(more)}.")
    varying = [key for key in keys if len({group.labels[key] for group in groups}) > 1]
    shared = {key: groups[0].labels[key] for key in keys if key not in varying and groups[0].labels[key]}
    names = ("bound", "pixels" if unit == "image" else "data", f"validation {unit}s", f"test {unit}s")
    why = "; ".join(
        f"{name}: {own or 'none'} in place of {other or 'none'}"
        for name, own, other in zip(names, compares, first, strict=True)
        if own != other
    )
    what, pixels, *checksums = compares
    images = ", ".join(f"{name} {sum_}" for name, sum_ in zip(("val", "test"), checksums, strict=True) if sum_)
    return Section(f"{what}; {pixels}; {unit}s {images}", why, shared, varying, groups, metric, notes)


def _unit(group: Group) -> str:
    """What one of the data is: an image, or the row of a table."""
    return str(group.runs[0].record["bound"].get("units", "nats per image")).rpartition(" ")[2]


def _origins(runs: Sequence[Run]) -> Iterator[str]:
    """What a reader must know of where runs come from."""
    without = sum("choices" not in run.record for run in runs)
    if without:
        yield f"{without} of {len(runs)} runs recorded no choices, so classes name the groups."
    starts = [start for run in runs for start in run.record.get("starts", ())]
    commits = sorted({start["git"]["commit"][:8] for start in starts if start.get("git")})
    if len(commits) > 1:
        yield f"Trained by {len(commits)} versions of the code: {', '.join(commits)}."


def _compares(run: Run) -> tuple[str, ...]:
    """What must agree for numbers to compare: bound, pixels, the checksums of the images that are scored."""
    bound, data = run.record["bound"], run.record["data"]
    if folded := run.record.get("folded"):  # each fold has images of its own
        pixels = str(bound.get("representation")).partition(", (x - ")[0]  # each fold has a scale of its own
        scale = run.config.get("data.scale", "none")
        return bounded(bound), pixels if scale == "none" else f"{pixels}, data.scale={scale}", "", folded
    return bounded(bound), str(bound.get("representation")), data.get("val", ""), data.get("test", "")


def _of_folds(compares: tuple[str, ...], group: Group) -> tuple[str, ...]:
    """The same with the folds that a group has: each is of other images, so only groups with the same ones compare."""
    folds = sorted({run.repeat[1] for run in group.runs if run.repeat[1] is not None})
    if not folds:
        return compares
    return *compares[:-1], f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))} ({compares[-1]})"


def _one_each_seed(members: Sequence[Run], repeats: dict[Path, str]) -> list[Run]:
    """The last run of each seed and fold; the same again is the same number again, not one more."""
    kept: dict[tuple[int, int | None], Run] = {}
    for run in sorted(members, key=lambda run: (run.record.get("starts") or [{}])[0].get("time", "")):
        if run.repeat in kept:
            repeats[kept[run.repeat].folder] = f"the same config and seed again: {run.folder} is taken"
        kept[run.repeat] = run
    return list(kept.values())
