"""`python -m vae_exp`: trains one model, or a sweep of them with `-m`."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from vae_exp.cli import check_overrides, job, run_command
from vae_exp.config import CONF
from vae_exp.runs.folder import load_config


@hydra.main(config_path=CONF, config_name="train", version_base="1.3")
def _train(cfg: DictConfig) -> float | None:
    with job():
        check_overrides(cfg, "train")
        for folder in (cfg.resume, cfg.init_from):
            if folder:
                load_config(folder)
        from vae_exp.training.job import train_job  # torch is imported when the config is known to be sound

        return train_job(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp` and of the console script."""
    sys.path.insert(0, "")  # parts of the user's own, in the current folder, for the console script too
    if sys.argv[1:2] == ["--rank-of"]:  # one of the processes that DDP starts, see training/job.py
        from vae_exp.training.job import train_rank

        train_rank(Path(sys.argv[2]))
        return
    run_command(_train, "train")


if __name__ == "__main__":
    main()
