"""W&B, as a view of `metrics.csv`: offline where there is no server, and one run with each row once after a resume."""

import logging
import os
import shutil
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from vae_exp.loggers.csv import rows_before

__all__ = ["WandB", "link", "make_wandb", "offline_files"]

UNSENT = ("callbacks", "logger")  # of the config: they change no number, and have more keys than all else together
# What W&B reads from a variable, with the value that we prefer to its own.
SETTINGS = {
    "WANDB_INIT_TIMEOUT": ("init_timeout", 20),  # in case the server stops answering
    "WANDB_SILENT": ("silent", True),
    # Private in W&B, which writes to its file every 15 s: a killed run would lose these.
    "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": ("x_transaction_log_flush_interval", 1.0),
}

log = logging.getLogger("vae_exp")


class WandB(WandbLogger):
    """Lightning's logger, whose `_step` is the number of the row in `metrics.csv`."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Sends the config without the trees of `callbacks` and `logger`."""
        entries = params if isinstance(params, dict) else vars(params)
        super().log_hyperparams({key: value for key, value in entries.items() if key not in UNSENT})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row, as `metrics.csv` has it."""
        self.experiment.log({**metrics, "trainer/global_step": step})

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Adds pictures to the next row, so that they have no row of their own."""
        import wandb

        self.experiment.log({key: [wandb.Image(image) for image in images]}, commit=False)


def make_wandb(
    save_dir: str,
    run_id: str,
    first_step: int | None = None,
    dir: str | None = None,  # noqa: A002  as W&B calls it
    **kwargs: Any,
) -> WandB:
    """A W&B logger that works offline if there is no account or no network.

    A run that is resumed has each row once. Offline, the rows of `metrics.csv` that it keeps are written into a new
    file, with their pictures, and the old file is removed. Online, the server is asked to go back to the last of them.

    Arguments:
        save_dir: The run folder.
        run_id: The id of the run; it stays the same when the run is resumed, so that its curves continue.
        first_step: The first step of this start of training, 0 for a new run; None to add to a run without training.
        dir: The folder for W&B's own folder `wandb`; None for the run folder.
        kwargs: Further arguments of `WandbLogger`.

    Raises:
        ValueError: If a tag has more than 64 letters.
    """
    import wandb

    for tag in kwargs.get("tags") or []:
        if not 0 < len(tag) <= 64:
            raise ValueError(f"tags: W&B takes 1 to 64 letters, {tag!r} has {len(tag)}")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    settings: dict[str, Any] = dict(choice for variable, choice in SETTINGS.items() if variable not in os.environ)
    logger = WandB(save_dir=dir or save_dir, id=run_id, settings=wandb.Settings(**settings), **kwargs)
    init = logger._wandb_init
    init.pop("anonymous", None)  # Lightning sets it, but W&B no longer knows it and warns
    if getattr(rank_zero_only, "rank", 0) != 0:
        return logger
    if not (kwargs.get("offline") or "mode" in kwargs or "WANDB_MODE" in os.environ or _wandb_answers()):
        init["mode"] = "offline"
    folder, home = Path(save_dir), Path(dir or save_dir)
    home.mkdir(parents=True, exist_ok=True)
    earlier = offline_files(home, run_id)
    kept = rows_before(folder / "metrics.csv", first_step) if first_step else []
    if kept and not earlier and any(home.glob(f"wandb/run-*-{run_id}")):
        init |= {"resume": None, "resume_from": f"{run_id}?_step={len(kept) - 1}"}
    try:
        run = logger.experiment
    except wandb.Error as error:
        log.warning("W&B does not take the run, logging offline: %s", error)
        init |= {"resume": "allow", "resume_from": None, "mode": "offline"}
        run = logger.experiment
    if run.disabled:
        return logger
    # A link to the log of W&B's own process, outside the run folder, where no link may lead.
    (Path(run.dir).parent / "logs" / "debug-core.log").unlink(missing_ok=True)
    if run.offline:
        log.info("W&B             offline in %s/wandb; later: python -m vae_exp.sync %s", home, save_dir)
    else:
        log.info("W&B             %s", run.url)
    # Lightning's step is the x axis of each curve, and the summary shows the best bound, not the last one.
    for name in ("train/elbo", "val/elbo", "test/elbo"):
        run.define_metric(name, step_metric="trainer/global_step", summary="max")
    if first_step is not None and (kept or earlier) and not init.get("resume_from"):
        _replay(run, kept, earlier)  # without rows the run begins anew
    if run.offline:
        for file in offline_files(home, run_id):
            link(file.parent, folder)
    return logger


def offline_files(home: Path, run_id: str) -> list[Path]:
    """W&B's files of a run that were written offline, the oldest first.

    Arguments:
        home: The folder that holds W&B's folder `wandb`.
        run_id: The id of the run.
    """
    return sorted(home.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))


def link(source: Path, folder: Path) -> None:
    """Links W&B's folder of an offline run into `outputs`, where `wandb leet outputs` looks for it.

    Links that lead nowhere, because their run was moved or deleted, are removed. Nothing is done for a run folder that
    does not lie in a folder `outputs`.
    """
    root = next((parent for parent in folder.resolve().parents if parent.name == "outputs"), None)
    if root is None:
        return
    for old in root.glob("offline-run-*"):
        if old.is_symlink() and not old.exists():
            old.unlink(missing_ok=True)
    with suppress(FileExistsError):
        (root / source.name).symlink_to(os.path.relpath(source.resolve(), root))


def _replay(run: Any, rows: list[dict[str, str]], earlier: list[Path]) -> None:
    """Logs rows of `metrics.csv`, with the pictures that earlier files have for them, and removes these files."""
    import wandb

    pictures: dict[int, dict[str, Path]] = defaultdict(dict)
    for file in earlier:
        media = file.parent / "files" / "media" / "images"
        for path in sorted(media.rglob("*.png")):
            # W&B names them `key_row_checksum.png`.
            key, place, _ = path.relative_to(media).as_posix().rsplit("_", 2)
            pictures[int(place)][key] = path
    for number, row in enumerate(rows):
        values = {key: _number(text) for key, text in row.items() if text and key not in ("step", "seconds")}
        drawn = {key: [wandb.Image(str(path))] for key, path in pictures[number].items()}
        run.log({**values, **drawn, "trainer/global_step": int(row["step"])})
    for file in earlier:
        shutil.rmtree(file.parent)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _wandb_answers() -> bool:
    """Whether there is a key and a server that accepts it; gives up after ten seconds without an answer."""
    import wandb

    try:
        return wandb.login(prompt=False)
    except (wandb.Error, OSError) as error:
        log.warning("W&B does not answer, logging offline: %s", error)
        return False
