"""The model card of an exported run: what it is, of which data, what its numbers bound, and how it is used.

Mitchell et al. (2019), arXiv:1810.03993; the head is that of the Hugging Face hub.
"""

from typing import Any

from vae_exp.records import read_evaluation
from vae_exp.runs.folder import fingerprint
from vae_exp.runs.trained import Trained

__all__ = ["card"]

SHOWN = ("test/elbo", "test/recon", "test/kl", "test/error")  # of training


def card(trained: Trained, about: dict[str, Any], licence: str | None) -> str:
    """Markdown, with the head that the hub reads.

    Arguments:
        trained: The run.
        about: What `export.json` holds.
        licence: Of the weights, as the hub names it; None if nobody stated one.
    """
    data, cfg = trained.data, trained.cfg
    source = data.source.name or type(data.source).__name__
    images = trained.record.get("data", {})
    splits = ", ".join(f"{split} {checksum}" for split, checksum in images.items()) or "unknown"
    bound = about["bound"]
    is_bound = "a lower bound of it" if bound["is_bound"] else "no bound of it"
    of = f"`{bound['of']}`, a {bound['kind']}; the ELBO is {is_bound}" if bound["of"] else "no density"
    parts = ", ".join(f"{key} `{about[key]['_target_'].rpartition('.')[2]}`" for key in ("posterior", "prior"))
    files = [
        f"| `{name}.onnx` | {_side(one['inputs'])} | {_side(one['outputs'])} |" for name, one in about["files"].items()
    ]
    head = ["---", "library_name: vae_exp", *([f"license: {licence}"] if licence else []), "---", ""]
    return "\n".join(
        [
            *head,
            f"# {cfg.name}",
            "",
            f"A `{about['model']}` trained with vae_exp {about['versions']['vae_exp']}: {parts}, likelihood "
            f"`{about['likelihood']['_target_'].rpartition('.')[2]}`, "
            f"{cfg.get('latent_dim')} latents, seed {cfg.seed}.",
            "",
            "## Data",
            "",
            f"`{source}`, images {list(data.image_shape)}, {bound['representation']}. Checksums: {splits}.",
            "",
            "## Numbers",
            "",
            f"Of {of}. In {bound['units']}, of {trained.checkpoint} weights.",
            "",
            "| number | value |",
            "|---|---|",
            *(f"| {name} | {value:.4f} |" for name, value in _numbers(trained).items()),
            "",
            "## Files",
            "",
            "| file | takes | gives |",
            "|---|---|---|",
            *files,
            "| `model.safetensors` | | the weights; the config is in its metadata |",
            "",
            f"x: {about['names']['x']}. More is in `export.json`.",
            "",
            "## Licence",
            "",
            licence or "None is stated: ask whoever trained it. `export license=mit` states one.",
            "",
        ]
    )


def _numbers(trained: Trained) -> dict[str, float]:
    """Those of the test at the end of training, and of `evaluate` if it scored the same weights on test images."""
    of_training = trained.record.get("metrics", {}) if trained.checkpoint == "best" else {}
    numbers = {name: of_training[name] for name in SHOWN if name in of_training}
    scored = read_evaluation(trained.folder / "evaluation.json")
    weights = fingerprint(trained.folder / "checkpoints" / f"{trained.checkpoint}.ckpt")
    if scored and scored.get("weights") == weights:
        numbers |= {f"test/{name}": scored[name] for name in scored.get("headline", {}) if name in scored}
    return {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}


def _side(tensors: dict[str, str]) -> str:
    return ", ".join(f"`{name}` {kind}" for name, kind in tensors.items())
