"""`python -m vae_exp.sweep NAME`: where a sweep stands, from the folders of its runs."""

import sys
from pathlib import Path

from vae_exp.cli import exit_code
from vae_exp.config import ConfigError
from vae_exp.sweeps.sweep import read_sweep
from vae_exp.sweeps.table import lines

SWEEPS = Path("outputs", "sweeps")


def _show() -> None:
    if len(sys.argv) != 2:
        names = sorted(path.parent.name for path in SWEEPS.glob("*/sweep.json"))
        raise ConfigError(
            f"vae_exp sweep NAME: one name, or a folder, is needed; outputs/sweeps/ has {', '.join(names)}"
        )
    folder = Path(sys.argv[1]) if Path(sys.argv[1], "sweep.json").exists() else SWEEPS / sys.argv[1]
    print("\n".join(lines(read_sweep(folder), folder)))  # noqa: T201


def main() -> None:
    """Entry point of `python -m vae_exp.sweep`."""
    sys.exit(exit_code(_show, "train"))


if __name__ == "__main__":
    main()
