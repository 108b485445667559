"""What to do next with a run: a sentence and a command each, those that help most first."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vae_exp.runs.state import State

__all__ = ["advice"]

MOST = 5


def advice(
    folder: str,
    cfg: DictConfig,
    status: str,
    rows: Sequence[Mapping[str, str]],
    made: Collection[str],
    unit: str,
) -> list[dict[str, str]]:
    """At most five things, each a `text`, a `command`, and a `link` where a page is there already.

    Arguments:
        folder: The run folder, as a command line names it.
        cfg: The config of the run.
        status: Its state, in a word.
        rows: Of `metrics.csv`.
        made: What the run has: `evaluation`, `explore`, and the names of its pictures.
        unit: What one of the data is, image or row.
    """
    found: list[dict[str, Any]] = []

    def add(text: str, command: str, link: str = "") -> None:
        found.append({"text": text, "command": f"python -m vae_exp{command}", "link": link})

    if status in (State.CUT_OFF, "interrupted"):
        add("The run is not finished: go on with it.", f" resume={folder}")
    elif _still_better(cfg, rows):
        epochs = int(rows[-1].get("epoch") or 0) + 1
        add("The last validation was the best one: train on.", f" resume={folder} trainer.max_epochs={2 * epochs}")
    if "explore" in made:
        add("Move the latents and watch the picture.", f".explore run={folder}", "explore.html")
    elif unit == "image":
        add("Move the latents and watch the picture.", f".explore run={folder}")
    if "evaluation" not in made:
        add("Score it: log p(x) with its errors, and what the latents are used for.", f".evaluate run={folder}")
    for what, text in _uses(unit).items():
        if what not in made:
            add(text, f".generate run={folder} what={what}")
    add("Set it beside other runs.", f".compare '{Path(folder).parent}/*'")
    return [*found[: MOST - 1], found[-1]] if len(found) > MOST else found


def _uses(unit: str) -> dict[str, str]:
    if unit != "image":
        return {"impute": "Fill in entries that are missing.", "anomalies": f"Find the strangest {unit}s."}
    return {
        "interpolation": "Go from one image to another.",
        "embeddings": "See where the images lie in the latent space.",
        "anomalies": "Find the strangest images.",
    }


def _still_better(cfg: DictConfig, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether the metric that the best checkpoint follows was best at the last of several validations."""
    values = [float(row[cfg.monitor]) for row in rows if row.get(cfg.monitor)]
    best = max if cfg.get("monitor_mode", "max") == "max" else min
    return len(values) > 2 and values[-1] == best(values)
