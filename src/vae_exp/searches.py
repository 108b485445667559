"""Searches: which points a sweep visits, and in which order."""

from collections.abc import Iterator

from hydra.core.override_parser.types import Override

from vae_exp.config import ConfigError
from vae_exp.sweeps.plan import Job, Planner, words_of
from vae_exp.sweeps.sweep import Sweep

__all__ = ["Grid"]


class Grid:
    """Every combination of the values that are listed."""

    def jobs(self, sweep: Sweep, planner: Planner, several: list[Override]) -> Iterator[Job]:
        """The jobs in order; all are planned at once, so that a wrong config is known before the first one trains."""
        for word in several:
            if word.is_interval_sweep():
                raise ConfigError(
                    f"{word.input_line}: a grid needs a list of values such as {word.key_or_group}=1,2,4; "
                    "an interval is searched with sweep=optuna"
                )
        sweep.jobs = [planner.job(num, varied) for num, varied in enumerate(words_of(several))]
        todo: dict[str, Job] = {}
        for job in sweep.jobs:
            if job.cell and not sweep.is_settled(job):
                todo.setdefault(job.cell, job)
        return iter(todo.values())

    def tell(self, job: Job, value: float | None) -> None:
        """Does nothing: a grid learns nothing from its jobs."""
