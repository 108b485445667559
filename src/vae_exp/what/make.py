"""Makes pictures and numbers from runs: what `python -m vae_exp.generate` does."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import CONF, ConfigError
from vae_exp.runs.folder import fingerprint, write_json
from vae_exp.runs.trained import Trained, each_run

__all__ = ["generate", "generate_runs"]

log = logging.getLogger("vae_exp")


def generate_runs(cfg: DictConfig, what: str) -> dict[Path, dict[str, Any]]:
    """Uses every run of `cfg.run` for one `what`.

    Arguments:
        cfg: As `conf/generate.yaml`.
        what: The option of `conf/what/` that `cfg` was composed with.

    Returns:
        The numbers of each run, by run folder.

    Raises:
        ConfigError: If there is no such run, or the use has no meaning for it.
    """

    def work(trained: Trained) -> dict[str, Any]:
        numbers = generate(trained, cfg, what)
        shown = {name: value for name, value in numbers.items() if isinstance(value, float) and "_se_" not in name}
        for name, value in shown.items():
            errors = [numbers.get(f"{name}_se_{over}") for over in ("images", "draws")]
            log.info("%-28s %10.4f%s", name, value, "".join(f" ± {error:.4f}" for error in errors if error is not None))
        for path in sorted((trained.folder / "generated" / what).glob("*.png")):
            log.info("%s", path)
        return numbers

    return each_run(cfg, work)


def generate(trained: Trained, cfg: DictConfig, what: str) -> dict[str, Any]:
    """Uses one run; see `generate_runs`.

    Raises:
        ConfigError: If the use has no meaning for this run, or an option has no such value.
    """
    common = [*OmegaConf.load(Path(CONF) / "trained.yaml"), "logger", "what", "hydra"]
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in common])
    options = {str(key): value for key, value in OmegaConf.to_container(own, resolve=True).items()}  # type: ignore[union-attr]
    out = trained.folder / "generated" / what
    out.mkdir(parents=True, exist_ok=True)
    trained.reseed(what)
    try:
        numbers = get_method(cfg.what)(trained, out, **options)
    except (ConfigError, ValueError) as error:  # of a part, or an option
        with suppress(OSError):
            out.rmdir()  # fails if it holds the results of an earlier command
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    settings = {"what": what, "checkpoint": trained.checkpoint, "split": trained.split, "seed": trained.seed}
    settings["weights"] = fingerprint(trained.folder / "checkpoints" / f"{trained.checkpoint}.ckpt")
    write_json(out / f"{what}.json", {**settings, **options, **numbers})
    if "wandb" in cfg.logger:
        trained.log_wandb({f"{what}/{name}": value for name, value in numbers.items()}, sorted(out.glob("*.png")))
    return numbers
