"""The table of a comparison: on the terminal, as Markdown, LaTeX and CSV."""

import csv
import re
from collections.abc import Iterator, Sequence
from io import StringIO

from vae_exp.comparison.groups import Group, Section
from vae_exp.comparison.statistics import Interval

__all__ = ["as_csv", "as_latex", "as_markdown", "as_text", "cells", "heads", "legend"]

MOST = 40  # rows on the terminal
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}", "±": r"$\pm$", "-": "-", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def legend(sections: Sequence[Section]) -> str:
    """What the numbers are, and of what."""
    of = " or ".join(dict.fromkeys(section.unit for section in sections)) or "image"
    return f"Mean ± 95 % t interval over seeds, nats per {of}. The difference from the best is over the seeds of both."


def heads(section: Section) -> list[str]:
    """What stands above the columns: what tells the groups apart, seeds, metrics; the difference beside what ranks."""
    first, *others = section.metrics or [section.metric]
    names = [key.removesuffix("._target_").removesuffix(".source") for key in section.keys] or ["group"]
    return [*names, "seeds", first, "difference", *others]


def cells(section: Section, group: Group) -> list[str]:
    """A row of the table, as text."""
    first, *others = section.metrics or [section.metric]
    names = [group.labels[key] for key in section.keys] or [section.name(group)]
    count = len(group.runs)
    gap = "best" if group is section.groups[0] else shown(section.difference(group), first, count, "+")
    return [*names, str(count), *(shown(group.interval(first), first, count), gap), *_numbers(group, others)]


def _numbers(group: Group, metrics: Sequence[str]) -> list[str]:
    return [shown(group.interval(metric), metric, len(group.runs)) for metric in metrics]


def shown(value: Interval | None, metric: str, count: int, sign: str = "-") -> str:
    """A mean with its interval; the number of seeds, too, if these are not all the `count` seeds of the group."""
    if value is None:
        return ""
    digits = 4 if metric.endswith("/error") else 2
    half = "" if value.half is None else f" ± {value.half:.{digits}f}"
    return f"{value.mean:{sign}.{digits}f}{half}{'' if value.n == count else f' (n={value.n})'}"


def as_text(sections: Sequence[Section]) -> Iterator[str]:
    """Lines for the terminal."""
    yield legend(sections)
    for number, section in enumerate(sections, start=1):
        yield ""
        yield f"{number}. {section.title}" if len(sections) > 1 else section.title
        yield from _above(section)
        names = len(section.keys) or 1
        rows = [heads(section), *(cells(section, group) for group in section.groups[:MOST])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            texts = [f"{text:{'<' if place < names else '>'}{widths[place]}}" for place, text in enumerate(row)]
            yield "  ".join(texts).rstrip()
        if len(section.groups) > MOST:
            yield f"... and {len(section.groups) - MOST} more groups in the files"


def _above(section: Section) -> Iterator[str]:
    """What must be known to read a table."""
    if section.shared:
        yield "all with " + ", ".join(f"{key}={label}" for key, label in section.shared.items())
    if section.why:
        yield f"does not compare with the first table: {section.why}"
    yield from section.notes


def as_markdown(sections: Sequence[Section]) -> str:
    """A table for each section, under a heading."""
    lines = [legend(sections)]
    for section in sections:
        lines += ["", f"## {section.title}", "", *(line for text in _above(section) for line in (text, ""))]
        rows = [heads(section), *(cells(section, group) for group in section.groups)]
        names = len(section.keys) or 1
        marked = [["", *("---" if place < names else "---:" for place in range(len(rows[0]))), ""]]
        bars = [["", *(text.replace("|", "\\|") for text in row), ""] for row in rows]
        lines += [" | ".join(row).strip() for row in (bars[0], *marked, *bars[1:])]
    return "\n".join(lines) + "\n"


def as_latex(sections: Sequence[Section]) -> str:
    r"""A `tabular` for each section, for `\usepackage{booktabs}`; the best group in bold."""
    lines = [f"% {legend(sections)} Needs \\usepackage{{booktabs}}."]
    for section in sections:
        names = len(section.keys) or 1
        head = [_latex(text) for text in heads(section)]
        lines += ["", *(f"% {text}" for text in (section.title, *_above(section)))]
        lines += [f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}", "\\toprule"]
        lines += [" & ".join(head) + r" \\", "\\midrule"]
        for group in section.groups:
            row = [_latex(text) for text in cells(section, group)]
            if group is section.groups[0]:
                row = [f"\\textbf{{{text}}}" if text else "" for text in row]
            lines.append(" & ".join(row) + r" \\")
        lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    text = "".join(LATEX.get(sign, sign) for sign in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)


def as_csv(sections: Sequence[Section]) -> str:
    """A row for each group of all sections, numbers at full precision.

    For each metric: its mean, half the width of its interval, the number of runs. `seeds` are seeds, or seed/fold;
    `difference` is from the best group of the section in what ranks it.
    """
    keys = list(dict.fromkeys(key for section in sections for key in (*section.keys, *section.shared)))
    metrics = list(dict.fromkeys(metric for section in sections for metric in section.metrics))
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    parts = [f"{name}{part}" for name in (*metrics, "difference") for part in ("", " ±", " n")]
    writer.writerow(["section", "compares", *keys, "seeds", "ranked by", *parts])
    for number, section in enumerate(sections, start=1):
        for group in section.groups:
            values = [*(group.interval(metric) for metric in metrics), section.difference(group)]
            numbers = [part for value in values for part in (value or ("", "", ""))]
            seeds = " ".join("/".join(str(n) for n in run.repeat if n is not None) for run in group.runs)
            labels = [group.labels.get(key, "") for key in keys]
            writer.writerow([number, section.title, *labels, seeds, section.metric, *numbers])
    return file.getvalue()
