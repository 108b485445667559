"""`python -m vae_exp.explore run=outputs/...`: a page that decodes by itself, with a slider for each latent."""

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.overrides import check_overrides
from vae_exp.runs.folder import run_folders


def _explore(cfg: DictConfig) -> None:
    check_overrides(cfg, "explore")
    run_folders(cfg)
    from vae_exp.page.explore import explore_runs  # torch is imported when the request is known to be sound

    explore_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.explore`."""
    run_command(_explore, "explore")


if __name__ == "__main__":
    main()
