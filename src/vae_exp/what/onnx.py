"""A trained model for other programs, as ONNX files and safetensors: what `python -m vae_exp.export` does."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import getdoc
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save
from torch import Tensor

from vae_exp.config import ConfigError
from vae_exp.distributions import mean_of, variance_of
from vae_exp.files import written
from vae_exp.models import VAE
from vae_exp.runs.build import bound
from vae_exp.runs.folder import write_json
from vae_exp.runs.trained import Trained, each_run
from vae_exp.what.card import card

__all__ = ["export", "export_runs"]

Part = Callable[..., dict[str, Tensor]]

log = logging.getLogger("vae_exp")

# onnxruntime sums float32 in another order than torch; usual is 1e-6. In units of the largest output, where over 1.
TOLERANCE = 1e-4
SIDES = ("inputs", "outputs")
NAMES = {
    "y": "labels, from 0",
    "z": "latents, as the prior or the encoder gives them",
    "z_mean": "mean of q(z|x)",
    "z_stddev": "standard deviation of q(z|x), for each dimension",
    "x_mean": "mean of p(x|z), in the range of x",
    "params": "what the likelihood reads",
    "log_qy": "log q(y|x), nats",
}
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "safetensors", "torch", "vae_exp")


def export_runs(cfg: DictConfig) -> dict[Path, dict[str, Any]]:
    """Exports every run of `cfg.run`.

    Arguments:
        cfg: As `conf/export.yaml`.

    Returns:
        What `export` gives, by run folder.

    Raises:
        ConfigError: If there is no such run, or one cannot be exported.
    """

    def work(trained: Trained) -> dict[str, Any]:
        about = export(trained, cfg.license)
        if "wandb" in cfg.logger:
            files = about["files"].items()
            trained.log_wandb({f"export/{name}/deviation": file["deviation"] for name, file in files}, [])
        return about

    return each_run(cfg, work)


def export(trained: Trained, licence: str | None = None) -> dict[str, Any]:
    """Writes ONNX files, `model.safetensors`, `export.json` and a model card into `export/` of the run folder.

    In float32, on the CPU; the batch size B is free. A model that is told labels takes `y (B,)`, int64, too.

    - `encoder.onnx`: `x (B, C, H, W) -> z_mean (B, D), z_stddev (B, D)`, of the posterior; without z_stddev where it
      has none. Not written where the posterior knows no mean, as a flow.
    - `decoder.onnx`: `z (B, D) -> x_mean (B, C, H, W), params (B, P*C, H, W)`: the mean image, and what the likelihood
      reads.
    - `classifier.onnx`, of m2: `x (B, C, H, W) -> log_qy (B, num_classes)`.

    Of several layers of z (hvae) it is the first, z_1: a decoder reads no other.

    Arguments:
        trained: The run.
        licence: Of the weights, for the card.

    Returns:
        What `export.json` holds: what each file takes and gives, how far it is from torch on random images, and in
        `refused` the reason for what was not written.

    Raises:
        ConfigError: If torch cannot export a part, or a file gives other numbers than the model.
    """
    model, data, out = trained.model.cpu(), trained.data, trained.folder / "export"

    def encoder(x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        q = model.code(x, y)
        return {"z_mean": q.mean} if variance_of(q) is None else {"z_mean": q.mean, "z_stddev": q.stddev}

    def decoder(z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        params: list[Tensor] = []
        with model.likelihood.register_forward_pre_hook(lambda _, read: params.extend(read)):
            px = model.decode(z, model.context(y))
        return {"x_mean": px.mean, "params": params[0]}

    trained.reseed("export")
    x = torch.rand(8, *data.image_shape)
    y = {"y": model.example_y(8)} if model.context_dim else {}
    parts: dict[str, tuple[Part, dict[str, Tensor]]] = {
        "encoder": (encoder, {"x": x, **y}),
        "decoder": (decoder, {"z": model.code(x, **y).sample(), **y}),
    }
    if model.infers_labels:
        parts["classifier"] = (lambda x: {"log_qy": model.classify(x)}, {"x": x})
    refused = {}
    if mean_of(model.code(x, **y)) is None:
        del parts["encoder"]
        refused["encoder"] = f"posterior: {type(model.posterior).__name__} knows no mean"

    out.mkdir(exist_ok=True)
    about: dict[str, Any] = {"run": trained.cfg.name, "checkpoint": trained.checkpoint, "model": type(model).__name__}
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with written(out / "model.safetensors", "wb") as file:
        file.write(save(weights, {**about, "config": OmegaConf.to_yaml(trained.cfg)}))
    files: dict[str, Any] = {}
    with trained.bar(len(parts), "export", "files") as bar:
        for name, (part, tensors) in parts.items():
            files[name] = _write(out / f"{name}.onnx", model, part, tensors)
            bar.update()
    pixels = data.representation
    values = "0 or 1" if pixels.is_bits else "any number" if pixels.is_real else "from 0 to 1"
    about |= {
        "files": files,
        "refused": refused,
        "names": NAMES | {"x": f"images: {pixels.title}, {values}"},
        "bound": bound(model, data),
        "tolerance": TOLERANCE,
        "versions": {package: version(package) for package in PACKAGES},
    }
    config: Any = OmegaConf.to_container(trained.cfg)
    for group in ("posterior", "prior", "likelihood"):
        about[group] = {**config[group], "doc": getdoc(getattr(model, group))}
    write_json(out / "export.json", about)
    with written(out / "README.md") as file:
        file.write(card(trained, about, licence))
    for name, file in files.items():
        inputs, outputs = (", ".join(f"{key} {kind}" for key, kind in file[side].items()) for side in SIDES)
        log.info("%s.onnx: %s -> %s, %.1e from torch", name, inputs, outputs, file["deviation"])
    for name, why in refused.items():
        log.info("no %s.onnx: %s", name, why)
    log.info("written to %s", out)
    return about


def _write(path: Path, model: VAE, part: Part, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Writes one file and runs it, on another number of images than it was made with.

    Arguments:
        path: Of the file.
        model: What the part works with.
        part: `inputs -> outputs`, tensors by name.
        inputs: Of which the first two are enough to trace the part.

    Raises:
        ConfigError: If torch cannot export the part, or the file gives other numbers.
    """

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model  # whose weights become the file's

        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(part(*inputs).values())

    expected = part(**inputs)
    batch = {0: torch.export.Dim("batch")}
    path.unlink(missing_ok=True)  # it may be a link, which torch would follow
    try:
        with _quiet():
            torch.onnx.export(
                Graph().eval(),
                tuple(tensor[:2] for tensor in inputs.values()),
                path,
                input_names=list(inputs),
                output_names=list(expected),
                dynamic_shapes=((batch,) * len(inputs),),
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = session.run(list(expected), {name: tensor.numpy() for name, tensor in inputs.items()})
    except RuntimeError as error:  # torch's and onnxruntime's
        path.unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path.name}: {reason}") from error
    deviation = max(
        float((torch.from_numpy(output) - tensor).abs().max() / tensor.abs().max().clamp(min=1))
        for output, tensor in zip(given, expected.values(), strict=True)
    )
    if not deviation <= TOLERANCE:  # nor a NaN
        path.unlink()
        raise ConfigError(f"{path.name}: its numbers are {deviation:.1e} from torch's, at most {TOLERANCE} is allowed")
    kinds = [
        {name: f"{str(tensor.dtype)[6:]} ({', '.join(map(str, ['B', *tensor.shape[1:]]))})" for name, tensor in side}
        for side in (inputs.items(), expected.items())
    ]
    return {**dict(zip(SIDES, kinds, strict=True)), "deviation": deviation}


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch.onnx and onnxscript tell their developers is kept from users; their errors are not."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # x and y share theirs
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
