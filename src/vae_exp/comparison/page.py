"""The page of a comparison, which opens from the disk and needs no other file; its script draws what `data` holds."""

import json
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from vae_exp.comparison.curves import Curves
from vae_exp.comparison.figures import MOST, NAMES, coordinates, of_plane
from vae_exp.comparison.groups import Group, Section
from vae_exp.comparison.read import Run, is_stale
from vae_exp.comparison.table import cells, heads, legend
from vae_exp.files import written
from vae_exp.page.embedded import data_url, picture
from vae_exp.page.template import render

__all__ = ["write_page"]

HERE = Path(__file__).parent
DRAWN = 60  # groups with charts on the page; of these the best MOST are shown at first
FEW = 6  # seeds that stand in the table one by one
PICTURES = ("samples", "reconstructions")


def write_page(
    out: Path, sections: Sequence[Section], found: Mapping[Group, Curves], left_out: Mapping[str, Sequence[Path]]
) -> Path:
    """Writes `compare.html`.

    Arguments:
        out: The folder of the page.
        sections: What it shows.
        found: The curves of each group that has any.
        left_out: The run folders that are not compared, by the reason.
    """
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in ("chart.js", "compare.js"))
    content = json.dumps([_charts(section, found) for section in sections], allow_nan=False, separators=(",", ":"))
    content = content.replace("<", "\\u003c")  # no tag can begin in it
    html = render(
        "compare.html",
        HERE,
        sections=[_section(section, out, found) for section in sections],
        num_runs=sum(len(group.runs) for section in sections for group in section.groups),
        num_groups=sum(len(section.groups) for section in sections),
        left_out={reason: [os.path.relpath(folder) for folder in folders] for reason, folders in left_out.items()},
        units=legend(sections),
        most=MOST,
        drawn=DRAWN,
        few=FEW,
        data=Markup(content),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )
    path = out / "compare.html"
    with written(path) as file:
        file.write(html)
    return path


def _section(section: Section, out: Path, found: Mapping[Group, Curves]) -> dict[str, Any]:
    """What the template shows of a section: its table, its pictures, and what is missing."""
    notes: dict[str, list[str]] = {}
    for run in (run for group in section.groups for run in group.runs):
        for note in run.notes:
            notes.setdefault(note, []).append(str(run.folder))
    cut = [section.name(group) for group, own in found.items() if own.is_cut and group in section.groups]
    names = len(section.keys) or 1
    return {
        "title": section.title.partition(";")[0],
        "images": section.title.partition("; ")[2],
        "why": section.why,
        "shared": section.shared,
        "notes": section.notes,
        "metric": section.metric,
        "heads": heads(section),
        "names": names,
        "rows": [
            {
                "cells": [text for place, text in enumerate(cells(section, group)) if place != names],
                "name": section.name(group),
                "runs": [{"seed": run.seed, "folder": str(run.folder), "page": _link(run, out)} for run in group.runs],
            }
            for group in section.groups
        ],
        "pictures": {what: _pictures(section, what, out) for what in PICTURES},
        "cut": cut,
        "unread": notes,
    }


def _link(run: Run, out: Path, name: str = "report.html") -> str | None:
    """The address of a run's page, seen from the folder `out`; None if it has none."""
    page = run.folder / name
    return quote(os.path.relpath(page, out)) if page.is_file() else None


def _pictures(section: Section, what: str, out: Path) -> list[dict[str, Any]]:
    """A picture for each of the best groups: that of the first seed that has one."""
    pictures = []
    for group in section.groups[:MOST]:
        for run in group.runs:
            path = run.folder / "images" / what / f"{what}.png"
            known = picture(path) if path.is_file() else None
            if known is not None:
                source = {
                    "source": known["tiles"]["source"] if known["tiles"] else data_url(path),
                    "is_stale": _is_stale(run, path.with_suffix(".json")),
                }
                about = {"name": section.name(group), "seed": run.seed, "page": _link(run, out)}
                pictures.append(source | about)
                break
    return pictures


def _is_stale(run: Run, about: Path) -> bool:
    """Whether a picture is of weights that the run had before."""
    try:
        content = json.loads(about.read_bytes())
        weights = run.folder / "checkpoints" / f"{content['checkpoint']}.ckpt"
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_stale(about, weights, content.get("weights"))


def _charts(section: Section, found: Mapping[Group, Curves]) -> dict[str, Any]:
    """What the script draws: plain numbers, null for those that are missing."""
    groups = section.groups[:DRAWN]
    stage = section.metric.partition("/")[0]
    terms = dict.fromkeys(term for group in groups if group in found for term in found[group].mean)
    axes = dict.fromkeys(axis for group in groups if group in found for axis in found[group].axes)
    return {
        "stage": stage,
        "unit": section.unit,
        "terms": {term: NAMES[term] for term in terms},
        "axes": list(axes),
        "shown": MOST,
        "groups": [
            {
                "name": section.name(group),
                "seeds": [run.seed for run in group.runs],
                "axes": {axis: _plain(column) for axis, column in found[group].axes.items()} if group in found else {},
                "curves": {
                    term: [_plain(column[term]) for column in (found[group].mean, found[group].low, found[group].high)]
                    for term in (found[group].mean if group in found else ())
                },
                "plane": [_plain(point) for point in of_plane(group, stage)],
            }
            for group in groups
        ],
        "parallel": coordinates(section, groups) if section.keys else [],
    }


def _plain(column: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.6g}") if isfinite(value) else None for value in column]
