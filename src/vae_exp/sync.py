"""`python -m vae_exp.sync 'outputs/**'`: pushes runs that W&B logged offline, and saves a view of them there."""

import sys

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.comparison.groups import sections
from vae_exp.comparison.read import read_runs, run_folders
from vae_exp.overrides import check_overrides
from vae_exp.words import with_run


def _sync(cfg: DictConfig) -> None:
    check_overrides(cfg, "sync")
    patterns = [cfg.run] if isinstance(cfg.run, str) else list(cfg.run)
    folders = run_folders(patterns)
    from vae_exp.loggers.push import push  # Lightning is imported when the request is known to be sound

    push(folders)
    if cfg.workspace:
        from vae_exp.loggers.workspace import save_workspace

        runs, _ = read_runs(patterns)
        for project in dict.fromkeys(run.config.get("logger.wandb.project") for run in runs):
            if project is not None:
                own = [run for run in runs if run.config.get("logger.wandb.project") == project]
                keys = dict.fromkeys(key for section in sections(own, [], None)[0] for key in section.keys)
                save_workspace(project, [key if key in own[0].config else f"{key}._target_" for key in keys])


def main() -> None:
    """Entry point of `python -m vae_exp.sync`."""
    sys.argv[1:] = with_run(sys.argv[1:])
    run_command(_sync, "sync")


if __name__ == "__main__":
    main()
