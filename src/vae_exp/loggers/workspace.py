"""A view of runs on W&B's pages: curves, the rate-distortion plane, parallel coordinates, pictures."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from vae_exp.config import ConfigError

__all__ = ["save_workspace", "workspace"]

CURVES = ("val/elbo", "val/recon", "val/kl")
PICTURES = ("images/samples", "images/reconstructions", "images/classes")

log = logging.getLogger("vae_exp")


def workspace(entity: str, project: str, differs: Sequence[str]) -> Any:
    """The view, not yet saved.

    Arguments:
        entity: Whose project it is.
        project: The project in W&B.
        differs: Keys of the config that tell the runs apart, beside their seeds.

    Raises:
        ConfigError: If `wandb-workspaces` is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError("workspace=true needs wandb-workspaces: pip install '.[wandb]'") from error

    curves: list[Any] = [
        panels.LinePlot(
            title=term, x="trainer/global_step", y=[term], groupby_aggfunc="mean", groupby_rangefunc="minmax"
        )
        for term in CURVES
    ]
    plane = panels.ScatterPlot(
        title="rate and distortion", x=panels.SummaryMetric("test/kl"), y=panels.SummaryMetric("test/recon")
    )
    # A metric whose best value is kept has that in its summary.
    columns: list[Any] = [*map(panels.Config, differs), panels.SummaryMetric("test/elbo.max")]
    coordinates = panels.ParallelCoordinatesPlot(
        title="config and ELBO", columns=[panels.ParallelCoordinatesPlotColumn(metric=column) for column in columns]
    )
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="vae_exp",
        sections=[
            workspaces.Section(name="curves", panels=curves, is_open=True),
            workspaces.Section(name="comparison", panels=[plane, coordinates], is_open=True),
            workspaces.Section(name="pictures", panels=[panels.MediaBrowser(media_keys=list(PICTURES))], is_open=True),
        ],
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config(key) for key in differs]),
    )


def save_workspace(project: str, differs: Sequence[str]) -> None:
    """Saves the view of a project in W&B and tells its address.

    Raises:
        ConfigError: If `wandb-workspaces` is not installed, or W&B does not take it.
    """
    import wandb

    view = workspace(os.environ.get("WANDB_ENTITY", ""), project, differs)
    try:
        view.entity = view.entity or wandb.Api().default_entity
        view.save()
    except Exception as error:  # whatever the server, the network or the library object to
        raise ConfigError(f"workspace=true: W&B did not save the view: {str(error).splitlines()[0]}") from error
    log.info("view            %s", view.url)
