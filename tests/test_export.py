"""`python -m vae_exp.export`: the files give what the model gives, for any number of images."""

import json
import sys
from importlib.util import find_spec

import onnxruntime
import pytest
import torch
from helpers.cases import slow_but
from helpers.runs import SMALL, command, composed, record
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import vae_exp
from vae_exp import export as door
from vae_exp.config import ConfigError
from vae_exp.runs.build import build
from vae_exp.runs.trained import Trained
from vae_exp.what.card import card
from vae_exp.what.onnx import export

DISCRETE = ("latent_dim=4", "objective.kl=monte_carlo", "objective.estimator=score_function")
CONV = ("encoder=conv", "decoder=conv", "encoder.channels=[4,4]", "decoder.channels=[4,4]")
ALL = [
    ["likelihood=bce", "data.binarize=dynamic"],
    ["model=hvae", "model.upper_dims=[2]"],
    ["model=m2", "likelihood=gaussian_shared"],
    ["model=cvae", *CONV],
    ["model=ae", "likelihood=laplace"],
    ["posterior=full_normal", "likelihood=categorical_256"],
    ["model=beta_vae", "likelihood=gaussian"],
    ["posterior=categorical", "likelihood=discretized_logistic", *DISCRETE],
    ["posterior=laplace", "likelihood=continuous_bernoulli", "prior=vamp"],
    ["posterior=bernoulli", "likelihood=sigma_vae", *DISCRETE],
    ["encoder=resnet", "decoder=resnet", "prior=flow"],
]


def trained(folder, *overrides):
    """A run that was never trained: its weights are as good as any."""
    is_mlp = not any(override.startswith("encoder=") for override in overrides)
    small = [each for each in SMALL if is_mlp or ".hidden" not in each]
    cfg = composed(*small, *overrides)
    model, data = build(cfg)
    return Trained(folder, cfg, model.eval().requires_grad_(False), data, progress=False)


def ran(path, *inputs):
    """What onnxruntime makes of tensors, by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)})
    return {output.name: torch.from_numpy(x) for output, x in zip(session.get_outputs(), given, strict=True)}


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", slow_but(ALL[:1], ALL), ids=" ".join)
def test_the_files_give_what_the_model_gives(tmp_path, overrides):
    run = trained(tmp_path, *overrides)
    model, out = run.model, tmp_path / "export"
    about = export(run)
    names = {"encoder", "decoder", *(["classifier"] if "model=m2" in overrides else [])}
    assert set(about["files"]) == names
    assert all(0 <= file["deviation"] < 1e-5 for file in about["files"].values())
    for num in (1, 5):  # not what it was made with
        x = torch.rand(num, 1, 8, 8)
        y = [torch.arange(num) % 4] if model.context_dim else []
        q = model.encode(x, *y)
        q = q.first if "model=hvae" in overrides else q
        encoded = ran(out / "encoder.onnx", x, *y)
        close(encoded.pop("z_mean"), q.mean)
        if "model=ae" not in overrides:
            close(encoded.pop("z_stddev"), q.variance.sqrt())
        assert not encoded

        z = q.sample()
        decoded = ran(out / "decoder.onnx", z, *y)
        close(decoded["x_mean"], model.decode(z, model.context(*y) if y else None).mean)
        close(model.likelihood(decoded["params"]).mean, decoded["x_mean"])
        if "model=m2" in overrides:
            close(ran(out / "classifier.onnx", x)["log_qy"], model.classify(x))


@pytest.mark.slow
def test_weights_and_words(tmp_path):
    run = trained(tmp_path, "model=cvae", "likelihood=gaussian")
    about = export(run)
    assert "license: mit" in card(run, about, "mit")
    assert "log p(x|y)`, a density; the ELBO is a lower bound of it" in card(run, about, None)
    assert about == json.loads((tmp_path / "export" / "export.json").read_text())
    assert about["files"]["encoder"]["inputs"] == {"x": "float32 (B, 1, 8, 8)", "y": "int64 (B)"}
    assert about["files"]["decoder"]["outputs"] == {
        "x_mean": "float32 (B, 1, 8, 8)",
        "params": "float32 (B, 2, 8, 8)",
    }
    assert about["likelihood"]["min_scale"] == 0.01
    assert "from 0 to 1" in about["names"]["x"]

    weights = load_file(tmp_path / "export" / "model.safetensors")
    expected = run.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    with safe_open(tmp_path / "export" / "model.safetensors", "pt") as file:
        assert "vae_exp.likelihoods.Gaussian" in file.metadata()["config"]


@pytest.mark.slow
def test_a_posterior_without_a_mean_leaves_the_encoder_out(tmp_path):
    about = export(trained(tmp_path, "posterior=flow"))
    assert set(about["files"]) == {"decoder"}
    assert "Flow knows no mean" in about["refused"]["encoder"]
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        "decoder.onnx",
        "model.safetensors",
        "export.json",
        "README.md",
    }


class Noisy(nn.Module):
    """Other numbers each time, as dropout that is never off."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Reading(nn.Module):
    """Python that hangs on numbers, which no graph holds."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.slow
@pytest.mark.parametrize(("part", "said"), [(Noisy, "at most 0.0001 is allowed"), (Reading, "decoder.onnx: ")])
def test_what_is_not_exported_well_is_an_error(tmp_path, part, said):
    run = trained(tmp_path)
    run.model.decoder.layers.append(part())
    with pytest.raises(ConfigError, match=said) as error:
        export(run)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "export" / "decoder.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript", "safetensors"])
def test_a_missing_package_is_named_before_torch_is_imported(tmp_path, monkeypatch, package):
    OmegaConf.save(composed(*SMALL), tmp_path / "config.yaml")
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(door, "check_overrides", lambda cfg, name: None)
    monkeypatch.setattr(door, "find_spec", lambda name: None if name == package else find_spec(name))
    monkeypatch.setitem(sys.modules, "vae_exp.what.onnx", None)  # whose import would fail
    with pytest.raises(ConfigError, match=rf"export needs {package}: pip install '\.\[export\]'"):
        door._export(OmegaConf.create({"run": str(tmp_path), "logger": {}}))


@pytest.mark.slow
def test_the_command(tmp_path, run):
    folder, _ = run("model=vae")
    done = command(f"run={folder}", module="vae_exp.export", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    card = (folder / "export" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: vae_exp\n---\n\n# vae_fake")
    assert f"| test/elbo | {record(folder)['metrics']['test/elbo']:.4f} |" in card
    assert record(folder)["data"]["test"] in card
    assert "None is stated" in card
    first, second, last = done.stdout.splitlines()
    assert first.startswith("encoder.onnx: x float32 (B, 1, 8, 8) -> z_mean float32 (B, 3), z_stddev float32 (B, 3), ")
    assert second.startswith("decoder.onnx: z float32 (B, 3) -> x_mean float32 (B, 1, 8, 8)")
    assert last == f"written to {folder}/export"
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        close(ran(folder / "export" / "encoder.onnx", x)["z_mean"], vae_exp.load(folder).encode(x).mean)
