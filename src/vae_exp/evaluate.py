"""`python -m vae_exp.evaluate run=outputs/...`: scores runs from their folders."""

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.overrides import check_overrides
from vae_exp.runs.folder import run_folders


def _evaluate(cfg: DictConfig) -> None:
    check_overrides(cfg, "evaluate")
    run_folders(cfg)
    from vae_exp.metrics.score import score_runs  # torch is imported when the request is known to be sound

    score_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.evaluate`."""
    run_command(_evaluate, "evaluate")


if __name__ == "__main__":
    main()
