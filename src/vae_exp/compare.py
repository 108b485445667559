"""`python -m vae_exp.compare 'outputs/**' by=model`: runs side by side, from their folders."""

import sys
from itertools import pairwise

from omegaconf import DictConfig

from vae_exp.cli import OPTIONS_WITH_VALUE, run_command
from vae_exp.comparison.compare import compare_runs
from vae_exp.overrides import check_overrides, quoted


def _compare(cfg: DictConfig) -> None:
    check_overrides(cfg, "compare")
    compare_runs(cfg)


def _with_run(words: list[str]) -> list[str]:
    """The command line with the words that name no key as `run=[...]`: folders, or patterns for several."""
    bare = [
        word
        for before, word in pairwise(["", *words])
        if "=" not in word and not word.startswith(("-", "~")) and before not in OPTIONS_WITH_VALUE
    ]
    run = [f"run=[{','.join(map(quoted, bare))}]"] if bare else []
    return [word for word in words if word not in bare] + run


def main() -> None:
    """Entry point of `python -m vae_exp.compare`."""
    sys.argv[1:] = _with_run(sys.argv[1:])
    run_command(_compare, "compare")


if __name__ == "__main__":
    main()
