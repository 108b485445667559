"""`report.html`: a run on one page, which opens from disk and needs no other file."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_exp import charts
from vae_exp.data import Contents
from vae_exp.files import written
from vae_exp.metrics.collapse import unused_latents
from vae_exp.metrics.score import ABOUT
from vae_exp.page.advice import advice
from vae_exp.page.pictures import is_stale, pictures, undrawn
from vae_exp.page.template import render
from vae_exp.page.words import glossary
from vae_exp.records import read_evaluation, read_record, read_rows
from vae_exp.runs.folder import load_config
from vae_exp.runs.state import state_of

__all__ = ["write_page"]

TERMS = {"elbo": "ELBO", "recon": "Reconstruction", "kl": "KL", "iwae": "IWAE bound", "error": "Error"}
NO_UNIT = ("error",)  # a fraction of the images
PARTS = (
    "model", "data", "encoder", "posterior", "prior", "decoder", "likelihood", "objective", "corruption", "init",
    "optimizer", "trainer",
)  # fmt: skip
# Not shown for each part: shapes follow from data and latent_dim, and the page also has the whole yaml.
DERIVED = ("_target_", "_partial_", "image_shape", "context_dim", "in_features", "params_per_pixel", "latent_dim")
# What `run.json` may not say, where it is damaged or of a run that has not begun.
UNKNOWN: dict[str, Any] = {
    "run_id": "unknown", "status": "unknown", "seed": "unknown", "error": None, "metrics": {}, "data": {}, "starts": [],
    "bound": {
        "of": "an unknown density", "is_bound": True, "representation": "of unknown data", "kind": "unknown",
        "units": "nats per image",
    },
}  # fmt: skip
START: dict[str, Any] = {
    "time": "", "argv": [], "git": None, "cpu": "", "cpu_count": "", "gpus": [], "platform": "", "python": "",
    "versions": {},
}  # fmt: skip
SETTINGS = ("latent_dim", "seed", "monitor", "init_from", "init_from_parts", "freeze", "weight_prior")


def write_page(folder: Path, refused: Mapping[str, str] | None = None) -> Path:
    """Writes `report.html` into a run folder, from the files in it.

    Arguments:
        folder: The folder of any run, also of an unfinished one.
        refused: By name, the reason why a picture is missing.

    Raises:
        ConfigError: If it is not a run folder.
    """
    cfg, record = load_config(folder), UNKNOWN | read_record(folder)
    bound = UNKNOWN["bound"] | record["bound"]
    starts = [START | start for start in record["starts"] if start]
    rows = read_rows(folder / "metrics.csv")
    metrics = {key: float(value) for row in rows for key, value in row.items() if value} | record.get("metrics", {})
    found = {path: read_evaluation(path) for path in sorted(folder.glob("evaluation*.json"))}
    evaluations = [_evaluation(folder, content) for content in found.values() if content]
    unit = bound["units"].rpartition(" ")[2]
    status, drawn = _status(folder, record), pictures(folder, cfg)
    made = {figure["what"] for figures in drawn.values() for figure in figures}
    made |= {"evaluation"} if evaluations else set()
    made |= {"explore"} if (folder / "explore.html").exists() else set()
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    html = render(
        "page.html",
        name=str(cfg.name),
        folder=shown,
        unit=unit,
        words=glossary(),
        advice=advice(str(shown), cfg, status, rows, made, unit),
        record=record | {"status": status},
        bound=bound,
        cards=_cards(bound["units"], metrics, evaluations),
        warning=_warning(cfg, record, metrics, evaluations),
        expected=cfg.get("expected"),
        parts=[_part(cfg, name, record.get("contents") or {}) for name in PARTS if cfg.get(name)],
        settings={key: _text(cfg[key]) for key in SETTINGS if cfg.get(key) is not None},
        yaml=(folder / "config.yaml").read_text(),
        curves=_curves(rows, bound["units"]),
        has_metrics=bool(rows),
        latents=_latents(folder, bound["units"]),
        pictures={section: [_figure(figure) for figure in figures] for section, figures in drawn.items()},
        refused=refused or {},
        undrawn=undrawn(folder, cfg),
        evaluations=evaluations,
        started=starts[-1]["time"] if starts else "",
        starts=[{**start, "command": _command(start["argv"])} for start in starts],
        duration=_duration(record.get("wall_seconds")),
    )
    path = folder / "report.html"
    with written(path) as file:
        file.write(html)
    return path


def _status(folder: Path, record: dict[str, Any]) -> str:
    """As the run recorded it, but that a run whose process is gone is not running."""
    return str(state_of(folder, record)) if record["status"] == "running" else record["status"]


def _warning(
    cfg: DictConfig, record: dict[str, Any], metrics: dict[str, float], evaluations: list[dict[str, Any]]
) -> str | None:
    """What to change, if the latents are unused; otherwise None."""
    known: dict[str, Any] = dict(metrics)
    for evaluation in evaluations:
        if not evaluation["is_stale"]:
            known |= {f"{evaluation['split']}/{name}": value for name, value in evaluation["numbers"].items()}
    return unused_latents(cfg, known, record.get("steps"))


def _cards(units: str, metrics: dict[str, float], evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The headline: numbers of the test split, or else the last ones of validation or training.

    They are the terms that training logs, and the numbers that the metrics of an evaluation choose for the headline.
    """
    stage = next((s for s in ("test", "val", "train") if any(key.startswith(f"{s}/") for key in metrics)), "test")
    numbers: dict[str, Any] = {key.partition("/")[2]: x for key, x in metrics.items() if key.startswith(f"{stage}/")}
    headline = dict.fromkeys(TERMS, units)
    for evaluation in evaluations:
        if evaluation["split"] == stage and not evaluation["is_stale"]:
            numbers |= evaluation["numbers"]
            headline |= evaluation["headline"]
    where = {"test": "test", "val": "validation, at last", "train": "training, at last"}[stage]
    return [
        {"where": where, **_card(name, unit, numbers)}
        for name, unit in headline.items()
        if isinstance(numbers.get(name), int | float)
    ]


def _card(name: str, unit: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """A number of the headline, with its standard errors."""
    value = numbers[name]
    errors = {over: numbers.get(f"{name}_se_{over}") for over in ("images", "draws")}
    shown = {"unit": unit, "value": f"{value:.2f}" if name in TERMS else _number(value)}
    if name == "error":
        shown = {"unit": f"of the {unit.rpartition(' ')[2]}s", "value": f"{100 * value:.2f} %"}
    return {
        "label": TERMS.get(name, name.replace("_", " ")),
        **shown,
        **{over: format(error, ".2g") if error else "" for over, error in errors.items()},
    }


def _part(cfg: DictConfig, name: str, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The class of a part (for data, the source) and its options, without those that are null."""
    node: Any = OmegaConf.to_container(cfg[name])
    choice = _text({"_target_": node.get("_target_", "")})
    options = {key: _text(value) for key, value in node.items() if key not in DERIVED and value is not None}
    if name == "data":
        choice = options.pop("source", choice)
        options = {"image_shape": _text(node.get("image_shape")), **options}
        if contents:
            options = {"contents": str(Contents(**contents)), **options}
    return {"name": name, "choice": choice, "options": options.items()}


def _text(value: Any) -> str:
    """A value of the config as text: a node with a class as `Class(key=value)`, a list of nodes by its length."""
    if isinstance(value, dict):
        kind = str(value.get("_target_", "")).rpartition(".")[2]
        inner = ", ".join(f"{key}={_text(item)}" for key, item in value.items() if key != "_target_")
        return f"{kind}({inner})" if inner else kind
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):  # such as the columns of a table
            return f"{len(value)} entries, see config.yaml"
        return f"[{', '.join(map(_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _curves(rows: Sequence[Mapping[str, str]], unit: str) -> list[tuple[str, dict[str, str]]]:
    """The title and the chart of each term that was logged."""
    drawn = {
        (term, title): charts.curves(
            rows, term, f"share of the {unit.rpartition(' ')[2]}s" if term in NO_UNIT else unit
        )
        for term, title in TERMS.items()
    }
    return [(title, charts.svg(draw)) for (_, title), draw in drawn.items() if draw is not None]


def _latents(folder: Path, units: str) -> dict[str, Any] | None:
    """Charts of the KL per dimension, the largest at the top."""
    rows = read_rows(folder / "kl_per_dim.csv")
    names = [name for name in rows[0] if name not in ("epoch", "step")] if rows else []
    rows = [row for row in rows if all(row[name] for name in names)]
    if not rows or not names:
        return None
    names.sort(key=lambda name: -float(rows[-1][name]))  # by the KL in the last row, the largest first
    kl = [[float(row[name]) for name in names] for row in rows]
    steps = [int(row["step"]) for row in rows]
    return {
        "largest": max(charts.LEAST, *map(max, kl)),
        "num": len(names),
        "first": names[0],
        "most": kl[-1][0],
        "last": charts.svg(charts.bars(kl[-1], names, unit=units)),
        "over_time": charts.svg(charts.heatmap(kl, steps, names)) if len(rows) > 1 else None,
    }


def _figure(figure: dict[str, Any]) -> dict[str, Any]:
    numbers, _ = _table(
        {key: value for key, value in figure["content"].items() if key not in ("by", "what", "weights")}
    )
    # The first line is the name of the run, which stands above the page.
    lines = figure["title"]
    return figure | {"numbers": numbers, "title": "; ".join(lines[1:] or lines)}


def _evaluation(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """An `evaluation.json`, with its numbers as a table."""
    numbers = {name: value for name, value in content.items() if name not in ABOUT}
    rows, columns = _table(numbers)
    return {
        **{"settings": {}, "headline": {}, "refused": {}, **{name: content[name] for name in ABOUT if name in content}},
        "is_stale": is_stale(content, folder / "checkpoints" / content["checkpoint"]),
        "numbers": numbers,
        "rows": rows,
        "columns": columns,
    }


def _table(numbers: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of values with their standard errors, and the names of the columns of errors (`images`, `draws`)."""
    errors: dict[str, dict[str, str]] = {}
    for name, value in numbers.items():
        base, _, over = name.partition("_se_")
        if over and base in numbers:
            errors.setdefault(base, {})[over] = _number(value)
    beside = {f"{base}_se_{over}" for base in errors for over in errors[base]} | {f"{name}_refused" for name in numbers}
    rows = [
        {"name": name, **_content(value), "errors": errors.get(name, {}), "reason": numbers.get(f"{name}_refused")}
        for name, value in numbers.items()
        if name not in beside
    ]
    columns = {over for of_one in errors.values() for over in of_one}
    return rows, sorted(columns, key=lambda over: (over != "images", over))


def _content(value: Any) -> dict[str, Any]:
    """How a value is shown: as a number, as text, as named numbers in one line, or as a list that opens on a click."""
    content: dict[str, Any] = {"value": "", "text": "", "pairs": [], "more": ""}
    if not isinstance(value, dict | list):
        return content | {"text" if isinstance(value, str) else "value": _number(value)}
    is_flat = not any(isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value))
    if isinstance(value, dict) and is_flat:
        return content | {"pairs": [(key, _number(item)) for key, item in value.items()]}
    return content | {
        "value": f"{len(value)} values",
        "more": ", ".join(map(_number, value)) if is_flat else str(value),
    }


def _number(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _command(argv: list[Any]) -> str:
    """The command as the user typed it."""
    program = Path(str(argv[0]) if argv else "")
    start = ["python", "-m", "vae_exp"] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *map(str, argv[1:])])


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.1f} s" if minutes < 2 else f"{minutes:.1f} min" if hours < 2 else f"{hours:.1f} h"
