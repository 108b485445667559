"""Checkpoints of a run: whether a file is sound, what is in it, and which one is the newest."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from vae_exp.config import ConfigError
from vae_exp.runs.folder import load_config

if TYPE_CHECKING:
    from vae_exp.models import VAE

__all__ = ["checkpoint", "load_checkpoint", "load_weights", "newest_sound"]

# What Lightning goes on from.
TO_RESUME = ("callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states")


def checkpoint(folder: str | Path, name: str) -> Path:
    """The path of the checkpoint `best`, `last` or `step_N` of a run.

    Raises:
        ConfigError: If there is none.
    """
    load_config(folder)
    if not re.fullmatch(r"best|last|step_\d+", name):
        raise ConfigError(f"checkpoint={name}: choose best, last, or step_N of callbacks.snapshots.at_steps=[N]")
    path = Path(folder) / "checkpoints" / f"{name}.ckpt"
    if not path.exists():
        beside = _beside(path)
        raise ConfigError(f"{folder} has no checkpoints/{name}.ckpt: the run stopped before it wrote one{beside}")
    return path


def load_checkpoint(path: Path, to_resume: bool = False) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values.

    torch stores the CRC-32 of each tensor in the file; here they are compared, which torch does not do.

    Arguments:
        path: The file.
        to_resume: Whether training is to go on from it, which weights alone do not allow.

    Raises:
        ConfigError: If the file is damaged or no checkpoint of a run; the message names the newest sound one beside it.
    """
    state, fault = _read(path)
    if not fault and to_resume and (missing := [key for key in TO_RESUME if key not in state]):
        fault = f"cannot be resumed: it has weights, but no {missing[-1]}"
    if fault:
        raise ConfigError(f"{path} {fault}{_beside(path)}")
    return state


def newest_sound(paths: list[Path], to_resume: bool = False) -> Path | None:
    """Of these files the one of the latest step that is sound, the first one of several; None if none is.

    Arguments:
        paths: The files; they may be missing.
        to_resume: Whether training is to go on from it.
    """
    steps = {}
    for path in paths:
        state, fault = _read(path) if path.exists() else ({}, "is missing")
        if not fault and not (to_resume and any(key not in state for key in TO_RESUME)):
            steps[path] = state.get("global_step", 0)
    return max(steps, key=lambda path: steps[path], default=None)


def load_weights(model: "VAE", path: Path) -> None:
    """Loads the weights of a checkpoint into a model that has the same parts.

    Raises:
        ConfigError: If the parts differ or the file is damaged.
    """
    try:
        model.load_state_dict(load_checkpoint(path)["state_dict"])
        model.is_new = False
    except RuntimeError as error:
        reason = "\n".join(line.strip() for line in str(error).splitlines()[:3])
        raise ConfigError(f"{path} is from a model with other parts: {reason}") from error


def _beside(path: Path) -> str:
    sound = newest_sound([other for other in sorted(path.parent.glob("*.ckpt")) if other != path])
    return f"; the newest sound one there is {sound.name}" if sound else "; no sound one lies there"


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a checkpoint, and what is wrong with it in a few words, empty if nothing is."""
    import torch  # imported late, so that a wrong folder is reported at once

    if fault := _fault_of_file(path):
        return {}, fault
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a foreign file can fail in any way, and torch's advice is to trust it
        return {}, "is no checkpoint of a run: it holds other things than tensors and plain values"
    weights = state.get("state_dict") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        return {}, "is no checkpoint of a run: it has no state_dict of weights"
    for name, weight in weights.items():
        if weight.isnan().any():
            return {}, f"cannot be used: there are nan in {name}"
    return state, ""


def _fault_of_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, not a checkpoint"
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()
        return f"is damaged: {damaged} does not have its checksum" if damaged else ""
    except BadZipFile:
        with path.open("rb") as opened:
            start = opened.read(4)
        if start == b"PK\x03\x04":
            return "is damaged: its end is missing"
        return "is no checkpoint: torch did not write it" if start else "is empty"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except Exception as error:  # whatever damaged bytes lead to
        return f"is damaged: {type(error).__name__}"
