"""Pruning: what ends the runs of a search that will not be its best."""

import optuna
import pytorch_lightning as pl
from optuna.trial import Trial

from vae_exp.callbacks import Ending

__all__ = ["Prune"]


class Prune(Ending):
    """Stops a run of a search that, at a validation, is worse than the median of the runs before it.

    It waits for five finished runs, and for one validation.

    Arguments:
        storage: The address of the study.
        study: Its name.
        trial: The number of this run in it.
        monitor: The metric that is compared.
    """

    def __init__(self, storage: str, study: str, trial: int, monitor: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a resumed run reports a validation twice
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        self.study = optuna.load_study(study_name=study, storage=storage, pruner=pruner)
        self.number, self.monitor = trial, monitor

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports the metric to the study, and ends the run if the study says so."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.is_global_zero:
            trial = Trial(self.study, self.study.trials[self.number]._trial_id)
            trial.report(float(trainer.callback_metrics[self.monitor]), step=trainer.current_epoch)
            self.has_ended = trial.should_prune()
        self.has_ended = trainer.strategy.reduce_boolean_decision(self.has_ended, all=False)
        trainer.should_stop = trainer.should_stop or self.has_ended
