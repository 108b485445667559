"""Makes pictures and numbers from runs: what `python -m vae_exp.generate` does."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import CONF, ConfigError, NoMeaningError
from vae_exp.runs.folder import fingerprint, write_json
from vae_exp.runs.trained import Trained, each_run

__all__ = ["generate_runs", "make"]

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
        numbers = make(trained, what, by=f"generate what={what}", cfg=cfg)
        shown = {name: value for name, value in numbers.items() if isinstance(value, float) and "_se_" not in name}
        for name, value in shown.items():
            errors = [numbers.get(f"{name}_se_{over}") for over in ("images", "draws")]
            log.info("%-28s %10.4f%s", name, value, "".join(f" ± {error:.4f}" for error in errors if error is not None))
        pictures = sorted((trained.folder / "images" / what).glob("*.png"))
        for path in pictures:
            log.info("%s", path)
        if "wandb" in cfg.logger:
            trained.log_wandb({f"{what}/{name}": value for name, value in numbers.items()}, pictures)
        return numbers

    return each_run(cfg, work)


def make(trained: Trained, what: str, by: str, cfg: DictConfig | None = None) -> dict[str, Any]:
    """Makes something of a run, in a folder of its `images/`, with a file that says what it was made of and by whom.

    Arguments:
        trained: The run.
        what: An option of `conf/what/`.
        by: Who asks, for the file.
        cfg: Names the function and its options; by default the file of `conf/what/`.

    Returns:
        The numbers that came with it.

    Raises:
        ConfigError: If the use has no meaning for this run, or an option has no such value.
    """
    chosen: Any = cfg or OmegaConf.load(Path(CONF) / "what" / f"{what}.yaml")
    options = _options(chosen)
    out = trained.folder / "images" / what
    out.mkdir(parents=True, exist_ok=True)
    trained.reseed(what)
    try:
        numbers = get_method(_function(chosen, what, trained))(trained, out, **options)
    except (ConfigError, ValueError) as error:  # of a part, or an option
        with suppress(OSError):
            out.rmdir()  # fails if it holds the results of an earlier command
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    about = {"by": by, "what": what, "checkpoint": trained.checkpoint, "split": trained.split, "seed": trained.seed}
    about["weights"] = fingerprint(trained.folder / "checkpoints" / f"{trained.checkpoint}.ckpt")
    write_json(out / f"{what}.json", {**about, **options, **numbers})
    return numbers


def _function(chosen: Any, what: str, trained: Trained) -> str:
    """The function that makes it of the kind of data that the run has.

    Raises:
        NoMeaningError: If it is for pictures alone, and the data are rows.
    """
    if trained.data.representation.unit == "image":
        if not chosen.what:
            raise NoMeaningError(f"what={what} is for rows of a table (data=table), the data are pictures")
        return chosen.what
    if not chosen.get("rows"):
        of_rows = [path.stem for path in sorted((Path(CONF) / "what").glob("*.yaml")) if "\nrows: " in path.read_text()]
        raise NoMeaningError(
            f"what={what} is for pictures, the data are rows of a table: choose of {', '.join(of_rows)}"
        )
    return chosen.rows


def _options(cfg: DictConfig) -> dict[str, Any]:
    """What is an option of the chosen `what`, not of all commands on trained runs."""
    common = [*OmegaConf.load(Path(CONF) / "trained.yaml"), "logger", "what", "rows", "hydra"]
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in common])
    return {str(key): value for key, value in OmegaConf.to_container(own, resolve=True).items()}  # type: ignore[union-attr]
