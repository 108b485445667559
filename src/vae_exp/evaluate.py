"""`python -m vae_exp.evaluate run=outputs/...`: scores runs from their folders."""

from omegaconf import DictConfig

from vae_exp.cli import check_overrides, run_command


def _evaluate(cfg: DictConfig) -> None:
    check_overrides(cfg, "evaluate")
    from vae_exp.metrics.score import score_runs  # torch is imported when the request is known to be sound

    score_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.evaluate`."""
    run_command(_evaluate, "evaluate")


if __name__ == "__main__":
    main()
