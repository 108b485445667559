"""`python -m vae_exp.report run=outputs/...`: a run on one page, from its folder."""

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.overrides import check_overrides
from vae_exp.runs.folder import run_folders


def _report(cfg: DictConfig) -> None:
    check_overrides(cfg, "report")
    run_folders(cfg)
    from vae_exp.page.report import report_runs  # torch is imported when the request is known to be sound

    report_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.report`."""
    run_command(_report, "report")


if __name__ == "__main__":
    main()
