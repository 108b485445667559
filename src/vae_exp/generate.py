"""`python -m vae_exp.generate run=outputs/... what=...`: what a trained model is used for, from its folder alone."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.config import ConfigError
from vae_exp.overrides import check_overrides
from vae_exp.runs.folder import run_folders


def _generate(cfg: DictConfig) -> None:
    check_overrides(cfg, "generate")
    run_folders(cfg)
    what = HydraConfig.get().runtime.choices.get("what")
    if what is None:
        raise ConfigError("what: one at a time is made, what=samples")
    from vae_exp.what.make import generate_runs  # torch is imported when the request is known to be sound

    generate_runs(cfg, what)


def main() -> None:
    """Entry point of `python -m vae_exp.generate`."""
    run_command(_generate, "generate")


if __name__ == "__main__":
    main()
