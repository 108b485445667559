"""What `conf/` interpolates beside Hydra's own resolvers. Imports nothing heavy."""

import ast
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
from omegaconf import DictConfig, OmegaConf

from vae_exp.help import help_page

__all__ = ["LOWER_IS_BETTER", "known_run", "register_resolvers"]

LOWER_IS_BETTER = ("val/recon", "val/loss", "val/error")


def register_resolvers() -> None:
    """What `conf/` interpolates beside Hydra's own."""

    def choices() -> list[str]:
        chosen = HydraConfig.get().runtime.choices
        return [f"{group}={name}" for group, name in chosen.items() if name and "/" not in group]

    def sweep_name() -> str | None:
        config = HydraConfig.get()
        return Path(config.sweep.dir).name if config.mode == RunMode.MULTIRUN else None

    def name_of_sweep(name: str | None) -> str:
        """The given name, or one that depends on what the command line varies and sets."""
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith(("sweep.", "launcher"))]
        return name or sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]

    def run_folder(resume: str | None, new: str) -> str:
        return resume if resume and (Path(resume) / "config.yaml").is_file() else new

    def subtract(total: int, *parts: int | None) -> int:
        return total - sum(part or 0 for part in parts)  # null: nothing is cut off

    def epochs(least: int, steps: int, *, _root_: DictConfig) -> int:
        """Passes over the training images for at least that number of steps; `least` if their number is unknown."""
        size, batch_size = (OmegaConf.select(_root_, f"data.{key}") for key in ("train_size", "batch_size"))
        return max(least, ceil(steps / max(1, size // max(1, batch_size)))) if size and batch_size else least

    def mean_for(levels: int | str | None) -> str:
        """The mean of a normal: where pixels are, in [0, 1]; anywhere for real numbers, `data.levels=null`."""
        return "identity" if levels is None else "sigmoid"

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

    for resolver in (
        choices,
        sweep_name,
        name_of_sweep,
        run_folder,
        subtract,
        epochs,
        mean_for,
        monitor_of,
        mode_of,
        help_page,
    ):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


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
