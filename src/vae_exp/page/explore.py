"""`explore.html`: the decoder of a run in a page, with sliders for its latents: what `vae_exp explore` writes."""

import json
import logging
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markupsafe import Markup
from omegaconf import DictConfig
from torch import Tensor

from vae_exp.config import NoMeaningError
from vae_exp.distributions import is_discrete
from vae_exp.files import written
from vae_exp.page.network import Network, packed
from vae_exp.page.template import render
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained, each_run
from vae_exp.what import codes
from vae_exp.what.traversal import kl_of_latents

__all__ = ["explore", "explore_runs"]

HERE = Path(__file__).parent
SCRIPTS = ("network.js", "plane.js", "explore.js")
POINTS = 2000  # codes in the plane
EXAMPLES = 40  # images to start from
VALUES = 25  # of a real attribute
DRAWS = 400  # latents from the prior
RANGE = (0.005, 0.995)  # quantiles of the codes between which a slider goes
ACTIVE = 0.01  # variance of the posterior means above which a latent is active (Burda et al., 2016)
CLOSE = 5e-4  # how far a picture of weights of 16 bits may be from torch's; else they have 32

log = logging.getLogger("vae_exp")


class Codes(NamedTuple):
    """The codes of N images of the split.

    Arguments:
        means: Of the posteriors, `(N, D)`.
        draws: One of each posterior, `(N, D)`.
        y: Labels of the data `(N,)`, -1 for none.
        told: The labels that the model was given, None for a model without labels.
        kl: The mean KL of each latent `(D,)`, nats per image; None if it is not a sum over latents.
    """

    means: Tensor
    draws: Tensor
    y: Tensor
    told: Tensor | None
    kl: Tensor | None


def explore_runs(cfg: DictConfig) -> dict[Path, Path]:
    """Writes `explore.html` into the folder of every run of `cfg.run`.

    Arguments:
        cfg: A config with the keys of `conf/explore.yaml`.

    Returns:
        The path of the page, by run folder.

    Raises:
        ConfigError: If there is no such run, or the page cannot compute its decoder.
    """

    def work(trained: Trained) -> Path:
        path = explore(trained)
        if "wandb" in cfg.logger:
            trained.log_wandb({}, [path])
        log.info("%s (%.1f MB)", path, path.stat().st_size / 1e6)
        return path

    return each_run(cfg, work)


@torch.no_grad()
def explore(trained: Trained) -> Path:
    """Writes `explore.html` into the run folder: a page that decodes by itself, without network and server.

    Raises:
        NoMeaningError: If data are rows, codes are discrete, or the decoder is none that the page computes.
    """
    model, unit = trained.model, trained.data.representation.unit
    if unit != "image":
        raise NoMeaningError(f"explore shows images, and the data are {unit}s: see generate what=samples")
    trained.reseed("explore")
    found = _codes(trained)
    contexts = model.context(model.example_y(model.num_classes)) if model.num_classes else None
    network, is_half = _network(trained, found)
    content: dict[str, Any] = {
        "shape": trained.data.image_shape,
        "network": network.as_dict(is_half),
        "latents": _latents(found),
        "axes": _axes(found),
        "start": _rounded(found.means.mean(dim=0)),
        "codes": {"z": packed(found.means[:POINTS].float()), "y": _classes(found.y[:POINTS])},
        "examples": _examples(trained),
        "contexts": None if contexts is None else [_rounded(c) for c in contexts],
        "attributes": _attributes(trained),
        "draws": _draws(trained, found.means.shape[1]),
    }
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # no tag begins in it
    html = render(
        "explore.html",
        name=str(trained.cfg.name),
        has_report=(trained.folder / "report.html").exists() or trained.cfg.get("report"),
        described=trained.described(None),
        has_kl=found.kl is not None,
        num_active=sum(not latent["dead"] for latent in content["latents"]),
        num_latents=len(content["latents"]),
        num_points=min(POINTS, len(found.means)),
        has_labels=max(content["codes"]["y"]) >= 0,
        data=Markup(text),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        **{key: content[key] for key in ("contexts", "attributes", "draws", "examples")},
    )
    path = trained.folder / "explore.html"
    with written(path) as file:
        file.write(html)
    return path


def _codes(trained: Trained) -> Codes:
    model = trained.model
    parts: dict[str, list[Tensor]] = {"means": [], "draws": [], "y": [], "told": [], "kl": []}
    with trained.bar(trained.num_images(), "explore") as bar:
        for x, y in trained.batches():
            told = codes.labels(model, x, y, None)
            q = model.code(x, told)
            if is_discrete(q):
                raise NoMeaningError(
                    "explore: the codes are bits or categories, which no slider moves between; "
                    "generate what=traversal sets each to its values"
                )
            mean, variance = codes.mean_and_variance(q)
            kl = kl_of_latents(q, model.prior(model.context(told)), x)
            draw = mean if variance is None else q.sample()
            for name, part in (("means", mean), ("draws", draw), ("y", y), ("told", told), ("kl", kl)):
                parts[name] += [] if part is None else [part.cpu()]
            bar.update(len(x))
    # In any order but that of the split, which may be one of classes.
    order = torch.randperm(trained.num_images(), generator=torch.Generator().manual_seed(trained.seed))
    whole = {name: torch.cat(part)[order] for name, part in parts.items() if part}
    kl = on_cpu(whole["kl"]).mean(dim=0) if "kl" in whole else None
    return Codes(whole["means"], whole["draws"], whole["y"], whole.get("told"), kl)


def _classes(y: Tensor) -> list[int]:
    """The classes that colour points; attributes are none."""
    return y.tolist() if y.dim() == 1 else [-1] * len(y)


def _network(trained: Trained, found: Codes) -> tuple[Network, bool]:
    """What the page computes, `z (D,), c -> (C, H, W)` from 0, black, to 1, white; and whether 16 bits are enough."""
    model = trained.model

    def decode(z: Tensor, c: Tensor | None = None) -> Tensor:
        return trained.shown(model.decode(z, c).mean)

    num = min(200, len(found.draws))
    inputs = [found.draws[:num].to(model.device)]
    if model.context_dim:
        assert found.told is not None
        inputs.append(model.context(found.told[:num].to(model.device)))  # type: ignore[arg-type]
    network = Network(model, decode, [each[:1] for each in inputs])
    return network, network.deviation(*inputs) <= CLOSE


def _latents(found: Codes) -> list[dict[str, Any]]:
    """What is known of each latent, those that say most of the image first."""
    variance = found.means.var(dim=0, correction=0)
    ends = torch.tensor(RANGE, dtype=found.draws.dtype)
    low, high = found.draws.quantile(ends, dim=0)
    order = (variance if found.kl is None else found.kl).argsort(descending=True, stable=True).tolist()
    return [
        {
            "d": d,
            "kl": None if found.kl is None else float(f"{found.kl[d]:.4g}"),
            "variance": float(f"{variance[d]:.4g}"),
            "low": float(f"{low[d]:.3f}"),
            "high": float(f"{high[d]:.3f}") if high[d] > low[d] else float(f"{low[d] + 1:.3f}"),
            "dead": bool(variance[d] <= ACTIVE),
        }
        for d in order
    ]


def _axes(found: Codes) -> list[dict[str, Any]]:
    """Directions that the plane may show beside the latents: the first two principal components of the codes."""
    if found.means.shape[1] <= 2:
        return []
    centred = found.means - found.means.mean(dim=0)
    *_, directions = torch.linalg.svd(centred[:POINTS], full_matrices=False)
    return [{"name": f"PC {k + 1}", "vector": _rounded(directions[k])} for k in range(min(2, len(directions)))]


def _examples(trained: Trained) -> dict[str, Any]:
    """Images of the split, sorted by label, as bytes, with their codes."""
    x, y = trained.images(EXAMPLES)
    order = torch.tensor(_classes(y)).argsort(stable=True)
    x, y = x[order], y[order]
    told = codes.labels(trained.model, x, y, None)
    mean, _ = codes.mean_and_variance(trained.model.code(x, told))
    c = trained.model.context(told)
    pixels = (trained.shown(x).clamp(0, 1) * 255).round().to(torch.uint8)
    return {
        "x": packed(pixels),
        "y": _classes(y),
        "z": packed(mean.float()),
        "c": None if c is None else [_rounded(each) for each in c],
    }


def _attributes(trained: Trained) -> list[dict[str, Any]]:
    """For each attribute that the model is given: its values in words, and what they are at some places of c."""
    model = trained.model
    if not model.context_dim or model.num_classes:
        return []
    y, found = model.condition.typical(1)[0], []
    for d, name in enumerate(model.condition.names):
        texts, rows = zip(*model.condition.varied(y, d, VALUES), strict=True)
        c: Any = model.context(torch.stack(rows).to(model.device))
        c = c.cpu()
        places = (c != c[:1]).any(dim=0).nonzero()[:, 0]
        words = [text.rpartition(" = ")[2] for text in texts]
        found.append({"name": name, "texts": words, "places": places.tolist(), "c": list(map(_rounded, c[:, places]))})
    return found


def _draws(trained: Trained, width: int) -> list[str]:
    """Latents from the prior, `(n, D)` packed, in a list of one, or for each class if the prior follows it; none of a
    prior that follows attributes, which are too many."""
    model = trained.model
    if not model.has("prior"):
        return []
    if not model.context_dim:
        return [packed(model.prior(None).sample((DRAWS,))[:, :width].float())]
    y = model.example_y(model.num_classes or 1)
    p = model.prior(model.context(y))
    if not p.batch_shape:
        return [packed(p.sample((DRAWS,))[:, :width].float())]
    if not model.num_classes:
        return []
    return [packed(each) for each in p.sample((max(DRAWS // len(y), 20),))[..., :width].float().unbind(dim=1)]


def _rounded(vector: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in vector.tolist()]
