"""Loggers: `metrics.csv`, W&B that never waits for a network, MLflow."""

from vae_exp.loggers.csv import CSV
from vae_exp.loggers.mlflow import make_mlflow
from vae_exp.loggers.wandb import make_wandb

__all__ = ["CSV", "make_mlflow", "make_wandb"]
