"""MLflow, in a local database or on a server."""

import os
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger

__all__ = ["make_mlflow"]


def make_mlflow(save_dir: str, run_id: str, tracking_uri: str | None, **kwargs: Any) -> MLFlowLogger:
    """An MLflow logger whose runs have our run id as a tag.

    Arguments:
        save_dir: The run folder.
        run_id: The id of our run.
        tracking_uri: The address of the store; if it is a local database that does not exist, it is created. None:
            that of the variable MLFLOW_TRACKING_URI.
        kwargs: Further arguments of `MLFlowLogger`.
    """
    # In place of minutes for each call to a server that does not answer.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    address: dict[str, Any] = {"tracking_uri": tracking_uri} if tracking_uri else {}
    return MLFlowLogger(**address, tags={"run_id": run_id, "folder": save_dir}, **kwargs)
