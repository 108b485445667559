"""Compares runs: what `python -m vae_exp.compare` does."""

import logging
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from vae_exp.charts import save_twice
from vae_exp.comparison.curves import curves
from vae_exp.comparison.figures import figures
from vae_exp.comparison.groups import Section, sections
from vae_exp.comparison.page import write_page
from vae_exp.comparison.read import TERMS, read_runs
from vae_exp.comparison.table import as_csv, as_latex, as_markdown, as_text
from vae_exp.files import written

__all__ = ["compare_runs"]

NAMED = 5  # folders of one reason on the terminal
log = logging.getLogger("vae_exp")


def compare_runs(cfg: DictConfig) -> list[Section]:
    """Compares the runs of `cfg.run`: a table on the terminal and in files, figures, a page.

    Arguments:
        cfg: A config with the keys of `conf/compare.yaml`.

    Returns:
        Sections whose runs compare, the largest first.

    Raises:
        ConfigError: If there is no run that can be read, or none has what a key names.
    """
    runs, left_out = read_runs([str(run) for run in _listed(cfg.run)])
    by = [] if cfg.by is None else [str(key) for key in _listed(cfg.by)]
    found, repeats = sections(runs, by, cfg.rank)
    left_out |= repeats
    for line in as_text(found):
        log.info(line)
    for reason, folders in by_reason(left_out).items():
        more = f" and {len(folders) - NAMED} more" if len(folders) > NAMED else ""
        log.info("left out: %d, %s: %s%s", len(folders), reason, ", ".join(map(str, folders[:NAMED])), more)
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("table.md", as_markdown), ("table.tex", as_latex), ("table.csv", as_csv)):
        with written(out / name) as file:
            file.write(content(found))
    log.info("tables          %s", out / "table.{md,tex,csv}")
    drawn = {group: own for section in found for group in section.groups if (own := curves(group, TERMS))}
    for number, section in enumerate(found, start=1):
        end = "" if len(found) == 1 else f"_{number}"
        for name, draw in figures(section, drawn, cfg.axis).items():
            save_twice(draw, out / f"{name}{end}", f"vae_exp compare, {section.title}")
    log.info("figures         %s", out / "*.{png,svg}")
    log.info("page            %s", write_page(out, found, drawn, by_reason(left_out)))
    return found


def by_reason(left_out: dict[Path, str]) -> dict[str, list[Path]]:
    """The folders that are left out, by the reason."""
    reasons: dict[str, list[Path]] = {}
    for folder, reason in left_out.items():
        reasons.setdefault(reason, []).append(folder)
    return reasons


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, ListConfig) else [value]
