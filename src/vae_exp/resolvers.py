"""What `conf/` interpolates beside Hydra's own resolvers. Imports nothing heavy."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha256
from math import ceil
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_exp.help import help_page
from vae_exp.paths import places

__all__ = ["LOWER_IS_BETTER", "decay_for", "known_run", "num_trained_on", "register_resolvers"]

LOWER_IS_BETTER = ("val/recon", "val/loss", "val/error")
# What does not make one run differ from another.
UNNAMED = (
    "hydra", "logger", "callbacks", "trainer", "name", "test", "report", "resume", "draw", "expected", "data.root",
)  # fmt: skip
LONGEST = 64  # letters of a tag, which W&B allows, and of a name


def register_resolvers() -> None:
    """What `conf/` interpolates beside Hydra's own."""

    def sweep_name() -> str | None:
        config = HydraConfig.get()
        return Path(config.sweep.dir).name if config.mode == RunMode.MULTIRUN else None

    def name_of_sweep(name: str | None) -> str:
        """The given name, or one that depends on what the command line varies and sets."""
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith(("sweep.", "launcher"))]
        return name or sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]

    def run_folder(resume: Any, new: str) -> Any:
        is_run = isinstance(resume, str) and resume and (Path(resume) / "config.yaml").is_file()
        return resume if is_run else new

    def subtract(total: int, *parts: int | None) -> int:
        return total - sum(part or 0 for part in parts)  # null: nothing is cut off

    def epochs(least: int, steps: int, *, _root_: DictConfig) -> int:
        """Passes over the training images for at least that number of steps; `least` if their number is unknown."""
        size, batch_size = num_trained_on(_root_=_root_), OmegaConf.select(_root_, "data.batch_size")
        return max(least, ceil(steps / max(1, size // max(1, batch_size)))) if size and batch_size else least

    def levels_for(path: str | None, root: str) -> int | str | None:
        """What `data.levels` is for the arrays of a file; 256 where there is none."""
        found = next((place for place in places(path, root) if place.is_file()), None) if path else None
        if found is None:
            return 256
        from vae_exp.arrays import levels_of

        return levels_of(found)

    def attributes_for(path: str | None, root: str) -> ListConfig | None:
        """What the columns of y in a file of arrays are; null where y is of labels."""
        found = next((place for place in places(path, root) if place.is_file()), None) if path else None
        if found is None:
            return None
        from vae_exp.arrays import has_rows

        if not has_rows(found):
            return None
        from vae_exp.data.attributes import attributes_of  # with pandas and torch, for such files alone

        columns = attributes_of(found)
        return None if columns is None else ListConfig(columns)

    def mean_for(levels: int | str | None) -> str:
        """The mean of a normal: where pixels are, in [0, 1]; anywhere for real numbers and counts."""
        return "identity" if levels in (None, "count") else "sigmoid"

    def transform_for(levels: int | str | None) -> str:
        """What encoders see of pixels: the logarithm of counts (Lopez et al., 2018)."""
        return "log1p" if levels == "count" else "none"

    def schema_of(*, _root_: DictConfig) -> Any:
        """What the columns of `data.source.path` hold."""
        from vae_exp.data.table import schema_or_reason  # with pandas and torch, for a table alone

        keys = ("data.source.path", "data.root", "data.source.kinds", "data.source.label")
        path, root, kinds, label = (OmegaConf.select(_root_, key) for key in keys)
        return OmegaConf.create(schema_or_reason(path, root, dict(kinds or {}), label))

    def classes_of(label: Any, number: int) -> int | None:
        """The number of classes where one column is the label; null where a list of them is attributes."""
        return number if isinstance(label, str) else None

    def attributes_of_sprites(label: Any) -> ListConfig | None:
        """What the factors of a list are."""
        shapes = {"kind": "categorical", "categories": ["square", "ellipse", "heart"]}
        if isinstance(label, str):
            return None
        return ListConfig([{"name": name, **(shapes if name == "shape" else {"kind": "real"})} for name in label or ()])

    def attributes_in_folder(path: str | None, root: str, num_classes: int | None, label: Any) -> ListConfig | None:
        """What the columns of attributes.csv in a folder are; null where there is none, or folders are classes."""
        if path is None or (num_classes is not None and label is None):
            return None
        folder = next((place for place in places(path, root) if place.is_dir()), None)
        if folder is None or not (folder / "attributes.csv").is_file():
            return None
        from vae_exp.data.attributes import attributes_in  # with pandas and torch, for such folders alone

        return ListConfig(attributes_in(folder, label))

    def attributes_of_celeba(label: Any) -> ListConfig | None:
        if label is None:
            return None
        from vae_exp.data.celeba import ATTRIBUTES

        names = ATTRIBUTES if label == "all" else [label] if isinstance(label, str) else label
        return ListConfig([{"name": name, "kind": "binary"} for name in names])

    def number_of(items: Any) -> int | None:
        return None if items is None else len(items)

    def width_of(num_classes: int | None, attributes: Any) -> int | None:
        """The width of c: the number of classes, or of what attributes become."""
        return num_classes if attributes is None else sum(len(each.get("categories", ())) or 1 for each in attributes)

    def row_of(columns: Any) -> ListConfig:
        return ListConfig([1, 1, len(columns)])

    def widest_of(columns: Any) -> int:
        """The numbers that the likelihood of a row reads for its widest column: its categories, or two."""
        return max([2, *(len(column.get("categories", ())) for column in columns)])

    def share_of(rows: int, share: float) -> int:
        return max(1, int(rows * share))

    def monitor_of(key: str, *, _root_: DictConfig) -> str:
        target = str(OmegaConf.select(_root_, f"{key}._target_"))
        package, _, name = target.rpartition(".")
        if package == "vae_exp.objectives":
            return _monitors().get(name, "val/elbo")
        try:
            objective = resolve_name(target)
        except Exception:  # whatever is wrong with it: it is named when the objective is made
            objective = None
        return getattr(objective, "monitor", "val/elbo")

    def mode_of(metric: str) -> str:
        return "min" if metric in LOWER_IS_BETTER else "max"

    of_sizes, of_names = (
        (subtract, epochs, num_trained_on, decay_for),
        (tags, run_name, sweep_name, name_of_sweep, run_folder),
    )
    of_tables = (schema_of, row_of, number_of, widest_of, share_of, width_of)
    of_pixels = (mean_for, transform_for, levels_for)
    of_y = (classes_of, attributes_for, attributes_of_sprites, attributes_in_folder, attributes_of_celeba)
    for resolver in (*of_names, *of_sizes, *of_tables, *of_pixels, *of_y, monitor_of, mode_of, help_page):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def num_trained_on(*, _root_: DictConfig) -> int | None:
    """Number of training images: `data.train_limit`, or else `data.train_size`, null if it is known only from files."""
    limit, size = (OmegaConf.select(_root_, f"data.{key}") for key in ("train_limit", "train_size"))
    return size if limit is None else limit


def decay_for(std: float | None, *, _root_: DictConfig) -> float | None:
    """The weight of half the squared parameters in the loss, for a prior N(0, std^2) on each, 1 / (N std^2).

    N is the number of training images: the loss is a mean over them. 0 without a prior, null if N is not known.
    """
    size = num_trained_on(_root_=_root_)
    return 0.0 if std is None else None if size is None else 1 / (size * std**2)


@cache
def _monitors() -> dict[str, str]:
    """What our objectives say is to be monitored, by class; read from their source, as an import of torch is slow."""
    trees = [ast.parse(file.read_text()) for file in (Path(__file__).parent / "objectives").glob("*.py")]
    found = {}
    for objective in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for line in objective.body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "monitor":
                found[objective.name] = ast.literal_eval(line.value)
    return found


def tags() -> ListConfig:
    """The options of groups that the command line chooses, as tags of W&B: `model=cvae`; WANDB_TAGS replaces them."""
    if "WANDB_TAGS" in os.environ:
        return ListConfig([tag for tag in os.environ["WANDB_TAGS"].split(",") if tag])
    groups = HydraConfig.get().runtime.choices
    chosen = {key: value for key, value in _typed() if key in groups or key.partition("@")[0] in groups}
    named = [key for key in chosen if not key.startswith(("logger", "callbacks", "hydra"))]
    return ListConfig([f"{key}={chosen[key]}"[:LONGEST] for key in named if chosen[key] not in ("", "null")])


def run_name(*, _root_: DictConfig) -> str | None:
    """The name of the run, what differs in this command, and the seed: `vae_mnist beta=4 seed=1`.

    In a sweep that is what the jobs do not share, in another command what was typed. It is null in the commands on
    trained runs, where the run has its name already.
    """
    name, seed = OmegaConf.select(_root_, "name"), OmegaConf.select(_root_, "seed")
    if name is None:
        return None
    typed = {key: value for key, value in _typed() if key != "seed" and f"_{value}_" not in f"_{name}_"}
    shared = {_plain(word.lstrip("+")) for word in sys.argv}
    swept = {key: value for key, value in typed.items() if _plain(f"{key}={value}") not in shared}
    if HydraConfig.get().mode != RunMode.MULTIRUN or not swept:
        swept = {k: v for k, v in typed.items() if k not in UNNAMED and k.partition(".")[0] not in UNNAMED}
    last = [key.rpartition(".")[2] for key in swept]
    short = [
        f"{word if last.count(word) == 1 else key}={value}"
        for word, (key, value) in zip(last, swept.items(), strict=True)
    ]
    shown = [name]
    for word in short:
        if len(" ".join([*shown, word, f"seed={seed}"])) > LONGEST:
            shown.append("…")
            break
        shown.append(word)
    return " ".join([*shown, f"seed={seed}"])


def _plain(word: str) -> str:
    """A word as it is however it was written: Hydra writes `report=false` as `report=False` for the jobs of a sweep."""
    return re.sub(r"[\s'\"]", "", word).lower()


def _typed() -> list[tuple[str, str]]:
    """Keys and values that the command line sets for this job."""
    words = [word.lstrip("+").partition("=") for word in HydraConfig.get().overrides.task if not word.startswith("~")]
    return [(key, value.replace(" ", "")) for key, _, value in words]


_run: dict[str, Any] = {}


@contextmanager
def known_run(**values: Any) -> Iterator[None]:
    """Within it yaml that asks for `${run_dir:}`, `${run_id:}` or `${first_step:}` gets the values given here.

    Outside each stays as it is written, in the `config.yaml` of a run too: a run may be moved, and is resumed.

    Arguments:
        values: run_dir, the run folder; run_id, that of `run.json`; first_step, where this start of the run begins.
    """
    _run.update(values)
    try:
        yield
    finally:
        _run.clear()


def _of_run(name: str) -> Any:
    return _run.get(name, f"${{{name}:}}")


for _name in ("run_dir", "run_id", "first_step"):
    OmegaConf.register_new_resolver(_name, partial(_of_run, _name), replace=True)
