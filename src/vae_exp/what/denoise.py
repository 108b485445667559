"""Takes noise off images."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, cat, nn

from vae_exp import plots
from vae_exp.conditions import Label
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.runs.build import make
from vae_exp.runs.trained import Trained
from vae_exp.what import codes
from vae_exp.what.errors import mean_and_error, squared_error

__all__ = ["denoise"]

SHOWN = 10


def denoise(
    trained: Trained,
    out: Path,
    num_images: int,
    corruption: dict[str, Any],
    input: str | Sequence[str] | None,  # noqa: A002
    label: Label,
) -> dict[str, Any]:
    """Corrupts images of the split, drawn at random, and reconstructs them; files are assumed to be corrupted already.

    Writes `denoise.png`: images, noisy and denoised. For files it also writes each one denoised: `<name>.png`.

    Returns:
        The squared error of a pixel against the clean image, with standard errors over images: `error_noisy`,
        `error_denoised`, and `error_clean` for the reconstruction of the clean image. None of these for files.

    Raises:
        NoMeaningError: If the run was trained without a corruption and none is chosen.
        ConfigError: If there is no such corruption, or a file is no picture like the run's.
    """
    model = trained.model
    if input is not None:
        x, y, names = codes.given(trained, input, label, [])
        recon = model.reconstruct(x, y)
        codes.save(trained, recon, names, out)
        _picture(trained, {"noisy": x, "denoised": recon}, "files and what the model makes of them", out)
        return {}
    if num_images < 1:
        raise ConfigError(f"num_images={num_images}: at least 1 is needed")
    chosen = OmegaConf.create({"corruption": corruption})
    noise = make(trained.cfg if corruption["_target_"] == "torch.nn.Identity" else chosen, "corruption").train()
    if isinstance(noise, nn.Identity):
        raise NoMeaningError("the run was trained without a corruption: choose corruption=gaussian or mask")
    values: dict[str, list[Tensor]] = defaultdict(list)
    shown: dict[str, Tensor] = {}
    with trained.bar(min(num_images, trained.num_images()), "denoise") as bar:
        for x, y in trained.batches(num_images=num_images):
            noisy = noise(x)
            images = {"noisy": noisy}
            for name, seen in (("denoised", noisy), ("clean", x)):
                images[name] = model.reconstruct(seen, codes.labels(model, seen, y, label))
            for name, image in images.items():
                values[f"error_{name}"].append(squared_error(image, x))
            shown = shown or {"x": x, "noisy": noisy, "denoised": images["denoised"]}
            bar.update(len(x))
    settings = [f"{key}={value}" for key, value in vars(noise).items() if isinstance(value, float)]
    kind = " ".join([type(noise).__name__.lower(), *settings])
    _picture(trained, shown, f"{trained.described(num_images)}, corrupted ({kind}) and denoised", out)
    return {key: number for name, parts in values.items() for key, number in mean_and_error(name, cat(parts)).items()}


def _picture(trained: Trained, rows: dict[str, Tensor], what: str, out: Path) -> None:
    columns = min(SHOWN, *map(len, rows.values()))
    shown = trained.shown(cat([images[:columns] for images in rows.values()]))
    plots.grid(shown, f"{trained.cfg.name}\n{what}", out / "denoise.png", rows=list(rows), columns=columns)
