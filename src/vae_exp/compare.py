"""`python -m vae_exp.compare 'outputs/**' by=model`: runs side by side, from their folders."""

import sys

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.comparison.compare import compare_runs
from vae_exp.overrides import check_overrides
from vae_exp.words import with_run


def _compare(cfg: DictConfig) -> None:
    check_overrides(cfg, "compare")
    compare_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.compare`."""
    sys.argv[1:] = with_run(sys.argv[1:])
    run_command(_compare, "compare")


if __name__ == "__main__":
    main()
