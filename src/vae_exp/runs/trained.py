"""A trained run, loaded from its folder alone; evaluate, generate, report and export use it."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from tqdm.auto import tqdm

from vae_exp.config import ConfigError
from vae_exp.data import Images
from vae_exp.loggers.csv import rows_before
from vae_exp.loggers.wandb import make_wandb, offline_files
from vae_exp.models import VAE
from vae_exp.records import read_record, sound_record
from vae_exp.runs.build import build
from vae_exp.runs.checkpoint import checkpoint as path_of
from vae_exp.runs.checkpoint import load_weights
from vae_exp.runs.folder import each_folder, load_config
from vae_exp.runs.inputs import files_of, prepared
from vae_exp.runs.targets import check_targets

__all__ = ["Trained", "each_run", "of_training", "restore"]

CHOICES = {"split": ("test", "val", "train"), "accelerator": ("auto", "cpu", "gpu")}
OPTIONS = ("checkpoint", "split", "seed", "accelerator", "data_root", "progress", "allow")  # of conf/trained.yaml

log = logging.getLogger("vae_exp")


@dataclass
class Trained:
    """A run that was loaded from its folder.

    Attributes:
        folder: The run folder.
        cfg: The config of the run, with the present place of the data.
        model: The model in evaluation mode, on the chosen device, without gradients for its parameters.
        data: The data; its batches are on that device.
        checkpoint: Which weights to use, best or last.
        split: Which images a command uses, test, val or train.
        seed: Fixes everything random in a command.
        progress: Whether to show progress bars.
        allow: The user's own modules that saved configs may name.
    """

    folder: Path
    cfg: DictConfig
    model: VAE
    data: Images
    checkpoint: str = "best"
    split: str = "test"
    seed: int = 0
    progress: bool = True
    allow: str | Sequence[str] | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`; empty if it is damaged."""
        return read_record(self.folder)

    def setup(self, split: str) -> None:
        """Reads a split if it has not been read yet.

        Raises:
            ConfigError: If files are missing or corrupt.
        """
        if split in self.data.splits:
            return
        try:
            self.data.prepare_data()
            self.data.setup("test" if split == "test" else "fit")
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from error
        known = self.record.get("data", {}).get(split)
        if known and known != self.data.checksums[split]:
            log.warning("the %s images are not those of the run (checksum %s)", split, known)

    @property
    def split_title(self) -> str:
        """The command's split in words, for titles."""
        return {"train": "training", "val": "validation"}.get(self.split, self.split)

    def num_images(self, split: str | None = None) -> int:
        """The number of images of a split, by default of the split of the command."""
        self.setup(split or self.split)
        return len(self.data.splits[split or self.split].y)

    def batches(self, split: str | None = None, num_images: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of a split in order, `(x, y)`, x in the form in which the model is given them in evaluation.

        The random numbers used for a batch depend only on `seed`, the split and the place of the batch.

        Arguments:
            split: By default the split of the command.
            num_images: Only this many images, those of `subset`; None for all.
        """
        split = split or self.split
        for i, (x, y) in enumerate(self.subset(split, num_images).data.batches(split)):  # type: ignore[arg-type]
            self.reseed(split, i)
            yield x, y

    def chosen(self, num_images: int | None, split: str | None = None) -> Tensor:
        """Which images of a split `subset` keeps: their numbers `(N,)`, ascending.

        Not the first images, because they may not be typical: the first half of MNIST's test images is easier.
        """
        total = self.num_images(split)
        if num_images is None or num_images >= total:
            return torch.arange(total)
        return torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))[:num_images].sort().values

    def subset(self, split: str, num_images: int | None) -> "Trained":
        """The run with `num_images` images of a split, drawn at random by `seed` and kept in their order.

        They are the same for every command with this seed, and a smaller subset is part of a larger one. Returns the
        run itself if the split has no more images, or `num_images` is None.
        """
        chosen = self.chosen(num_images, split)
        if len(chosen) == self.num_images(split):
            return self
        mask = torch.zeros(self.num_images(split), dtype=torch.bool)
        mask[chosen] = True
        return replace(self, data=self.data.only(split, mask))  # type: ignore[arg-type]

    def keys(self, num_images: int | None = None) -> list[Any]:
        """What names the images of the split that `subset` keeps: their files, or their rows in the file of the set."""
        keys, chosen = self.data.splits[self.split].keys, self.chosen(num_images)
        return chosen.tolist() if keys is None else keys[chosen.numpy()].tolist()

    def described(self, num_images: int | None) -> str:
        """The images of the command's split that `subset` keeps, in words, for titles."""
        total = self.num_images()
        if num_images is None or num_images >= total:
            return f"{total} {self.split_title} images"
        return f"{num_images} {self.split_title} images drawn at random"

    def with_all_labels(self) -> "Trained":
        """The run with the labels of all training images, even if it was trained with few labels (`data.labelled`)."""
        return replace(self, data=self.data.with_all_labels())

    def images(self, num_images: int, split: str | None = None) -> tuple[Tensor, Tensor]:
        """Images of a split and their labels in one batch: all, or `num_images` drawn at random, see `subset`."""
        x, y = zip(*self.batches(split, num_images), strict=True)
        return torch.cat(x), torch.cat(y)

    def read(self, paths: str | Sequence[str]) -> Tensor:
        """Pictures from the user's files, or folders, `(N, C, H, W)`, as the model is given test images.

        Raises:
            ConfigError: If a file is missing or not a picture, or its range is not that of the run.
        """
        return torch.cat([x for _, x, _ in self.inputs(paths)])

    def inputs(self, paths: str | Sequence[str]) -> Iterator[tuple[list[str], Tensor, Tensor | None]]:
        """What the user's files, and all pictures in the user's folders, hold: names, items and labels, in batches.

        Raises:
            ConfigError: As `read`.
        """
        files = files_of(paths, self.data)
        with self.bar(len(files), "input", "files") as bar:
            yield from prepared(files, self.data, bar.update)

    def reseed(self, *purpose: Any) -> None:
        """Seeds torch for a purpose, so that results do not depend on what was done before."""
        digest = blake2b(repr((self.seed, *purpose)).encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)

    def shown(self, images: Tensor) -> Tensor:
        """See `Images.shown`; for real numbers, with the range of the split of the command."""
        self.setup(self.split)
        return self.data.shown(images, self.split)  # type: ignore[arg-type]

    def bar(self, total: int, title: str, unit: str = "images") -> "tqdm[Any]":
        """A progress bar, to be used in a `with`."""
        # Not shown in a log file.
        return tqdm(total=total, desc=title, unit=f" {unit}", leave=False, disable=None if self.progress else True)

    def log_wandb(self, numbers: dict[str, Any], pictures: list[Path]) -> None:
        """Adds results to the run in W&B: numbers to its summary, pictures and pages by their names."""
        import wandb

        of_training = ("_target_", "save_dir", "run_id", "first_step")
        unstated = {"project": os.environ.get("WANDB_PROJECT", "vae_exp"), "name": self.cfg.name}
        stated = self.cfg.logger.get("wandb") or unstated
        options = {key: value for key, value in stated.items() if key not in of_training}
        run = make_wandb(str(self.folder), sound_record(self.folder)["run_id"], **options).experiment
        try:
            run.summary.update({name: value for name, value in numbers.items() if value is not None})
            if pictures:
                kinds = {".png": wandb.Image, ".html": wandb.Html}
                # Offline, W&B does not know how many rows its other files have.
                files = offline_files(Path(run.dir).parents[2], run.id)
                rows = rows_before(self.folder / "metrics.csv", sys.maxsize)
                step = len(rows) + len(files) if run.offline else None
                run.log({f"images/{path.stem}": kinds[path.suffix](str(path)) for path in pictures}, step=step)
        finally:
            wandb.finish()


def restore(
    run: str | Path,
    checkpoint: str = "best",
    split: str = "test",
    seed: int = 0,
    accelerator: str = "auto",
    data_root: str | None = None,
    progress: bool = True,
    allow: str | Sequence[str] | None = None,
) -> Trained:
    """A run read back from its folder, with its model and its data. No data are read yet.

    Arguments:
        run: The folder, as under outputs/.
        checkpoint: Which weights: best, last, or step_N of `callbacks.snapshots`.
        split: The images that are worked on, test, val or train.
        seed: Of everything random.
        accelerator: auto, cpu or gpu.
        data_root: Where the data are now, if not where the run found them.
        progress: Whether bars are shown.
        allow: Your own modules that the config of the run may name, see docs/security.md.

    Raises:
        ConfigError: If the folder holds no run, an option has a wrong value, or the machine lacks the accelerator.
    """
    for key, choice, choices in zip(CHOICES, (split, accelerator), CHOICES.values(), strict=True):
        if choice not in choices:
            raise ConfigError(f"{key}={choice}: choose one of {', '.join(choices)}")
    folder = Path(run)
    cfg = load_config(folder)
    path = path_of(folder, checkpoint)
    check_targets(cfg, folder / "config.yaml", allow)
    if data_root:
        cfg.data.root = data_root
    cfg.trainer.compile = False
    try:
        model, data = build(cfg, to_train=False)
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{folder} cannot be read back by this version of vae_exp.\n{error}") from error
    load_weights(model, path)
    model.check_fitted()
    data = data.on(_device(accelerator))
    model.to(data.device).eval().requires_grad_(False)
    return Trained(folder, cfg, model, data, checkpoint, split, seed, progress, allow)


def of_training(trainer: pl.Trainer, name: str, checkpoint_name: str = "") -> Trained:
    """The present run of a trainer, with its model and data, for validation images.

    Arguments:
        trainer: The trainer, during training or after it.
        name: The name above pictures, in place of the name of the run.
        checkpoint_name: The checkpoint that has these weights; empty for none.
    """
    folder = Path(trainer.default_root_dir)
    cfg = load_config(folder)
    cfg.name = name
    data = trainer.datamodule.on(trainer.strategy.root_device)  # type: ignore[attr-defined]
    return Trained(folder, cfg, trainer.lightning_module, data, checkpoint_name, "val", progress=False)  # type: ignore[arg-type]


def each_run(cfg: DictConfig, work: Callable[[Trained], Any]) -> dict[Path, Any]:
    """Calls `work` on every run that `cfg.run` names, and returns its results by run folder, see `each_folder`.

    Arguments:
        cfg: A config with the keys of `conf/trained.yaml`.
        work: A function of one run.
    """

    def restored(folder: Path) -> Any:
        return work(restore(folder, **{name: cfg[name] for name in OPTIONS}))

    return each_folder(cfg, restored)


def _device(accelerator: str) -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator == "cpu" or (accelerator == "auto" and found is None):
        return torch.device("cpu")
    if found is None:
        raise ConfigError("accelerator=gpu: torch finds none on this machine, choose auto or cpu")
    return found
