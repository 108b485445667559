"""What runs and groups are called: the few keys that tell them apart, and their values in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vae_exp.comparison.read import Run

__all__ = ["differing", "is_word", "reader", "short", "telling", "text", "typed"]

# What changes no number: keys, and nodes with all that is in them.
IDLE = (
    "name", "seed", "test", "report", "resume", "draw", "expected", "logger", "launcher", "sweep", "data.root",
    "data.scaled", "data.fold",
    "callbacks.pictures", "callbacks.curves", "callbacks.explorer",
    "callbacks.latents", "callbacks.speed", "callbacks.progress",
    "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.num_nodes", "trainer.log_every_n_steps",
    "trainer.enable_progress_bar", "trainer.enable_model_summary",
)  # fmt: skip
# Groups of conf/ whose options change no number, or only other keys that differ, too.
IDLE_CHOICES = ("logger", "callbacks", "trainer", "local", "experiment")
FIRST = ("model", "data", "objective", "prior", "posterior", "likelihood", "encoder", "decoder", "corruption")
WORDS = ("true", "false", "null", "none")  # that say nothing by themselves


def reader(runs: Sequence[Run]) -> Callable[[Run, str], Any]:
    """What a run has under a key: its choice where all runs recorded theirs, or else the value in its config."""
    have_choices = all("choices" in run.record for run in runs)

    def value(run: Run, key: str) -> Any:
        if have_choices and key in run.record["choices"]:
            return run.record["choices"][key]
        names = (key, f"{key}.source._target_") if key == "data" else (key, f"{key}._target_")
        return next((run.config[name] for name in names if run.config.get(name) is not None), None)

    return value


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys of the config whose values are not the same in all runs, without those that change no number or are the seed
    of each run, such as `data.train_seed`."""
    first = runs[0].config
    return [
        key
        for key in dict.fromkeys(key for run in runs for key in run.config)
        if any(run.config.get(key) != first.get(key) for run in runs)
        and not any(f"{key}.".startswith(f"{idle}.") for idle in IDLE)
        and not all(run.config.get(key) == run.seed for run in runs)
    ]


def telling(
    cells: Mapping[Any, Sequence[Run]],
    by: Sequence[str],
    varied: Sequence[str],
    value: Callable[[Run, str], Any],
) -> list[str]:
    """Few keys that tell all cells apart: those of `by`, choices, and then keys of the config.

    Arguments:
        cells: The runs of each cell, which differ in their seed alone.
        by: Keys that come first, whether they tell anything or not.
        varied: Keys of the config that differ between cells.
        value: What a run has under a key.
    """
    each = [members[0] for members in cells.values()]
    words = [key for run in each for key in typed(run)]
    choices = dict.fromkeys(key for run in each for key in run.record.get("choices", ()))
    groups = [key for key in dict.fromkeys((*FIRST, *choices)) if key not in IDLE_CHOICES and "/" not in key]
    order = sorted(varied, key=lambda key: (key.count("."), key.endswith("_target_")))
    candidates = [*groups, *(key for key in dict.fromkeys(words) if key in varied), *order]
    keys = list(by)
    known = [tuple(value(run, key) for key in by) for run in each]
    for key in candidates:
        more = [(*before, value(run, key)) for before, run in zip(known, each, strict=True)]
        tells = len(set(more)) > len(set(known))
        if tells and all(len({value(run, key) for run in members}) == 1 for members in cells.values()):
            keys.append(key)
            known = more
    return list(dict.fromkeys(keys))


def typed(run: Run) -> list[str]:
    """The keys that were typed for a run."""
    starts = run.record.get("starts") or [{}]
    words = run.record.get("overrides") or [word for word in starts[0].get("argv", [])[1:] if "=" in word]
    return [word.lstrip("+~").partition("=")[0] for word in words]


def short(keys: Sequence[str]) -> dict[str, str]:
    """Each key by as many of its last words as tell it from the others."""
    names = {}
    for key in keys:
        words = key.removesuffix("._target_").removesuffix(".source").split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        others = [other for other in keys if other != key]
        names[key] = next(
            (end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), ends[-1]
        )
    return names


def is_word(key: str, label: str) -> bool:
    """Whether a label says by itself what it is the label of, such as `cvae`."""
    return "." not in key.removesuffix("._target_") and label.replace("_", "").isalpha() and label not in WORDS


def text(value: Any) -> str:
    """A value in words: of a class its name, nothing of null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    whole = str(value)
    is_class = "." in whole and all(word.isidentifier() for word in whole.split("."))
    return whole.rpartition(".")[2] if is_class else whole
