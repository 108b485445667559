"""`python -m vae_exp`: trains one model, or a sweep of them with `-m`.

The console script `vae_exp` is the same, and `vae_exp evaluate`, `generate`, `report`, `export`, `compare` are the
other commands.
"""

import sys
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

import vae_exp
from vae_exp.cli import job, run_command
from vae_exp.config import ConfigError
from vae_exp.overrides import check_overrides, override
from vae_exp.runs.folder import load_config
from vae_exp.runs.resume import latest
from vae_exp.words import COMMANDS


def _train(cfg: DictConfig) -> None:
    with job():
        check_overrides(cfg, "train")
        for folder in (cfg.resume, cfg.init_from):
            if folder:
                load_config(folder)
        from vae_exp.training.job import train_job  # torch is imported when the config is known to be sound

        train_job(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp` and of the console script."""
    sys.path.insert(0, "")  # parts of the user's own, in the current folder, for the console script too
    if sys.argv[1:2] == ["--job"] and len(sys.argv) > 2:  # Lightning adds more words for the further processes of DDP
        from vae_exp.sweeps.job import job_process

        sys.exit(job_process(Path(sys.argv[2]), *sys.argv[3:4]))
    if sys.argv[1:] == ["--version"]:
        print(f"vae_exp {vae_exp.__version__}")  # noqa: T201
    elif sys.argv[1:2] and sys.argv[1] in COMMANDS[1:]:
        import_module(f"vae_exp.{sys.argv.pop(1)}").main()
    else:
        if sys.argv[1:2] == ["train"]:
            del sys.argv[1]
        try:
            sys.argv[1:] = [override("resume", latest()) if word == "resume=latest" else word for word in sys.argv[1:]]
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        run_command(_train, "train")


if __name__ == "__main__":
    main()
