"""`hydra/sweeper: vae_exp`, which hands `-m` to `vae_exp.sweeps`."""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

__all__ = ["CellSweeper"]


class CellSweeper(Sweeper):
    """Trains each cell of a sweep once."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra gives."""
        self.loader, self.of_sweep = hydra_context.config_loader, config

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the sweep of a command line."""
        from vae_exp.sweeps.command import run_sweep

        run_sweep(self.loader, self.of_sweep, arguments)


ConfigStore.instance().store(
    group="hydra/sweeper", name="vae_exp", node={"_target_": f"{__name__}.{CellSweeper.__name__}"}, provider="vae_exp"
)
