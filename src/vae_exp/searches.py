"""Searches: which points a sweep visits, and in which order."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from tqdm import tqdm

from vae_exp.config import ConfigError
from vae_exp.records import read_record
from vae_exp.resolvers import LOWER_IS_BETTER
from vae_exp.runs.state import State
from vae_exp.sweeps.plan import Job, Planner, words_of
from vae_exp.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

__all__ = ["Grid", "Optuna"]

MANY = 50  # jobs whose planning shows a bar
VERY_BAD = 1e12  # told of a run that diverged, so that the sampler leaves its region; nats per image


class Grid:
    """Every combination of the values that are listed."""

    def jobs(self, sweep: Sweep, planner: Planner, several: list[Override]) -> Iterator[Job]:
        """The jobs in order; all are planned at once, so that a wrong config is known before the first one trains.

        Raises:
            ConfigError: If there is no job, or the config of every one is wrong.
        """
        for word in several:
            if word.is_interval_sweep():
                raise ConfigError(
                    f"{word.input_line}: a grid needs a list of values such as {word.key_or_group}=1,2,4; "
                    "an interval is searched with sweep=optuna"
                )
        points = words_of(several)
        if not points:
            raise ConfigError(f"{' '.join(word.input_line or '' for word in several)}: no values, so there is no job")
        # None: only on a terminal.
        bar = tqdm(points, desc="planning", leave=False, disable=len(points) < MANY or None)
        sweep.jobs = [planner.job(num, varied) for num, varied in enumerate(bar)]
        if all(job.error for job in sweep.jobs):
            also = f"\nAll {len(points)} jobs are refused" if len(points) > 1 else ""
            raise ConfigError(f"{sweep.jobs[0].error}{also}")
        todo: dict[str, Job] = {}
        for job in sweep.jobs:
            if job.cell and not sweep.is_settled(job):
                todo.setdefault(job.cell, job)
        return iter(todo.values())

    def tell(self, sweep: Sweep, job: Job) -> None:
        """Does nothing: a grid learns nothing from its jobs."""

    def front(self) -> list[int]:
        """Empty: the table ranks the jobs of a grid."""
        return []


class Optuna:
    """Points that a tree-structured Parzen estimator proposes (Bergstra et al., 2011), from those it has seen.

    The study lies in `study.db` in the folder of the sweep; it goes on where it was stopped. A trial is a cell: the
    same point again costs nothing.

    Arguments:
        trials: How many points.
        objectives: What is optimised: null for the metric that the runs follow, or several of `val/*`, such as
            [kl, recon], all as small as possible, but the elbo.
        prune: Whether to stop a run that, at a validation, is worse than the median of those before it; for one
            objective.
    """

    def __init__(self, trials: int, objectives: list[str] | None = None, prune: bool = True) -> None:
        if trials < 1:
            raise ConfigError(f"sweep.trials={trials}: at least 1")
        self.trials, self.objectives, self.prune = trials, objectives, prune and not objectives

    def jobs(self, sweep: Sweep, planner: Planner, several: list[Override]) -> Iterator[Job]:
        """The jobs one by one; first those that were cut off.

        Raises:
            ConfigError: If nothing is to be searched, or a run with its fixed words would be wrong.
        """
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("sweep=optuna needs optuna: pip install '.[search]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not several:
            raise ConfigError(
                "sweep=optuna: nothing to search; give a range, such as latent_dim=2,4,8 or "
                "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
            )
        space = {word.get_key_element(): _distribution(word) for word in several}
        first = planner.job(0, dict(words_of([])[0]))
        if first.error:
            raise ConfigError(first.error)
        self._names = [f"val/{name}" for name in self.objectives or ()] or [f"best/{first.cfg['monitor']}"]
        self._modes = [_mode(name) for name in self._names] if self.objectives else [first.cfg["monitor_mode"]]
        sweep.folder.mkdir(parents=True, exist_ok=True)
        self._storage = f"sqlite:///{(sweep.folder / 'study.db').resolve()}"
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=sweep.folder.name,
            load_if_exists=True,
            directions=[f"{mode}imize" for mode in self._modes],
        )
        return self._ask(sweep, planner, space, int(first.cfg["seed"]))

    def _ask(self, sweep: Sweep, planner: Planner, space: dict[str, Any], seed: int) -> Iterator[Job]:
        import optuna
        from numpy.random import SeedSequence

        earlier = [self._job(trial, sweep, planner) for trial in self._study.get_trials(deepcopy=False)]
        running = optuna.trial.TrialState.RUNNING
        yield from [job for job, trial in zip(earlier, self._study.trials, strict=True) if trial.state == running]
        while len(self._study.trials) < self.trials:
            # TPE draws from its own stream, which begins anew with each start of this command.
            start = SeedSequence((seed, len(self._study.trials))).generate_state(1)
            self._study.sampler = optuna.samplers.TPESampler(seed=int(start[0]))
            trial = self._study.ask(space)
            job = self._job(self._study.trials[trial.number], sweep, planner)
            if job.error:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            else:
                yield job

    def _job(self, trial: "FrozenTrial", sweep: Sweep, planner: Planner) -> Job:
        job = planner.job(trial.number, {key: f"{key}={value}" for key, value in trial.params.items()})
        if self.prune and job.cell:  # it is no part of what the cell is known by
            job.cfg["callbacks"]["prune"] = {
                "_target_": "vae_exp.pruning.Prune",
                "storage": self._storage,
                "study": self._study.study_name,
                "trial": trial.number,
                "monitor": job.cfg["monitor"],
            }
        sweep.jobs.append(job)
        return job

    def tell(self, sweep: Sweep, job: Job) -> None:
        """Tells the study how a trial ended; one that was cut off stays open and goes on with the next command.

        Raises:
            ConfigError: If the run has no number of the name of an objective.
        """
        from optuna.trial import TrialState

        state, record = sweep.state(job), read_record(sweep.folder_of(job))
        if self._study.trials[job.num].state.is_finished():
            return
        if state is State.FINISHED:
            self._study.tell(job.num, [_number(record["metrics"], name) for name in self._names])
        elif state is State.PRUNED:
            self._study.tell(job.num, state=TrialState.PRUNED)
        elif state is State.FAILED and record.get("cause") == "numbers":
            self._study.tell(job.num, [VERY_BAD if mode == "min" else -VERY_BAD for mode in self._modes])
        elif state is State.FAILED:
            self._study.tell(job.num, state=TrialState.FAIL)

    def front(self) -> list[int]:
        """The numbers of the best jobs: one, or of several objectives those that no other job beats in all of them."""
        return [trial.number for trial in self._study.best_trials]


def _mode(name: str) -> str:
    return "min" if name in (*LOWER_IS_BETTER, "val/kl") else "max"


def _number(metrics: dict[str, float], name: str) -> float:
    if name not in metrics:
        known = sorted(key for key in metrics if key.startswith(name.partition("/")[0]))
        raise ConfigError(f"sweep.objectives: the runs have no {name}; they have {', '.join(known)}")
    return metrics[name]


def _distribution(word: Override) -> "BaseDistribution":
    """The range of a key, from Hydra's syntax: 1,2,4, range(1,9), interval(0.1,0.9), tag(log,interval(1e-4,1e-2))."""
    from optuna import distributions

    values: Any = word._value
    if isinstance(values, IntervalSweep):
        make = distributions.IntDistribution if isinstance(values.start, int) else distributions.FloatDistribution
        return make(values.start, values.end, log="log" in values.tags)
    ends: list[Any] = [values.start, values.stop, values.step] if isinstance(values, RangeSweep) else []
    if ends and all(isinstance(end, int) for end in ends):
        steps = range(*ends)
        return distributions.IntDistribution(min(steps), max(steps), step=abs(steps.step))
    return distributions.CategoricalDistribution(list(word.sweep_string_iterator()))
