"""The numbers of one or several runs as lines of text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["bounded", "tables"]

ERRORS = ("images", "draws")


def tables(results: Mapping[Path, tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    """The lines of tables: runs whose numbers can be compared share a table, one row for each run. A run that is alone
    has one line for each number.

    Numbers can be compared if they are for the same bound and the same images. If a number depends on the number of
    latents, its metric gives that as `<name>_samples`, and there is a column for each number of latents.

    Arguments:
        results: By run folder: what the evaluation describes, see `vae_exp.metrics.score.about`, and its numbers.
    """
    groups: dict[str, dict[Path, dict[str, str]]] = {}
    for folder, (facts, numbers) in results.items():
        # Losses cannot be compared: objectives and their weights differ from run to run.
        shown = {name: value for name, value in numbers.items() if name != "loss" or len(results) == 1}
        groups.setdefault(_title(facts), {})[folder] = _cells(facts["split"], shown)
    if any("±" in cell for rows in groups.values() for cells in rows.values() for cell in cells.values()):
        units = sorted({facts["bound"].get("units", "nats per image") for facts, _ in results.values()})
        yield f"elbo, recon, kl, nll and gaps in {', '.join(units)}; ± standard error over images ± over latents"
    for title, rows in groups.items():
        yield title
        yield from _aligned(rows, len(results) == 1)
    for folder, (_, numbers) in results.items():
        if "verdict" in numbers:
            yield f"{folder}: {numbers['verdict']}" if len(results) > 1 else numbers["verdict"]


def bounded(bound: Mapping[str, Any]) -> str:
    """What an ELBO bounds, in words that are the same for two runs if their ELBOs compare on the same images.

    Arguments:
        bound: What `run.json` records, see docs/conventions.md.
    """
    if bound["of"] is None:
        return "no density, no bound"
    return f"{bound['of']}, a {bound['kind']}" if bound["is_bound"] else f"a score that is no bound on {bound['of']}"


def _title(facts: dict[str, Any]) -> str:
    """A description that is the same for two runs if their numbers can be compared."""
    bound, split = facts["bound"], facts["split"]
    images = f"{facts['num_images']:,} {split} images, {bound['representation']}, checksum {facts['data'][split]}"
    return f"{bounded(bound)}; {images}"


def _cells(split: str, numbers: dict[str, Any]) -> dict[str, str]:
    """The numbers with their errors as text, by column."""
    cells = {}
    for name, value in numbers.items():
        is_count = isinstance(value, int) and name != "active_units"
        if is_count or not isinstance(value, int | float) or "_se_" in name:
            continue
        samples = numbers.get(f"{name}_samples")
        errors = [numbers.get(f"{name}_se_{over}") for over in ERRORS]
        text = f"{value}" if isinstance(value, int) else f"{value:.3f}"
        text += "".join(f" ± {error:.3f}" for error in errors if error is not None)
        cells[f"{split}/{name}" + (f"(K={samples})" if samples else "")] = text
    return cells


def _aligned(rows: dict[Path, dict[str, str]], is_alone: bool) -> Iterator[str]:
    if is_alone:
        (cells,) = rows.values()
        lines = [[name, text] for name, text in cells.items()]
    else:
        names = list(dict.fromkeys(name for cells in rows.values() for name in cells))
        lines = [
            ["run", *names],
            *([str(folder), *(cells.get(name, "") for name in names)] for folder, cells in rows.items()),
        ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
