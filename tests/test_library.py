"""docs/library.md: its code runs, and gives what stands beside it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from helpers.runs import ROOT, SMALL, composed, evaluated
from PIL import Image

import vae_exp
from vae_exp.runs.trained import restore
from vae_exp.training.job import train
from vae_exp.what.onnx import export

TEXT = (ROOT / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SIZES = {"C": 1, "H": 8, "W": 8, "D": 3}
SHARED = re.search(r"--include (.*)", TEXT)[1]  # what goes to the Hub
RUNS = {"vae": ("data.binarize=dynamic", "likelihood=bce"), "cvae": ("data.num_classes=10",)}


@pytest.mark.slow
def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model, overrides in RUNS.items():
        folder = tmp_path / "outputs" / f"{model}_mnist" / "RUN"
        size = ("data.source.size=128", "trainer.max_epochs=1")
        train(composed(*SMALL, f"model={model}", *overrides, *size), folder)
    export(restore("outputs/vae_mnist/RUN", progress=False))
    Image.new("L", (8, 8), 255).save("photo.png")

    names: dict = {}
    shapes = []
    for block in BLOCKS:
        exec(block, names)
        for name, shape in re.findall(r"^(\w+) = .*  # (\([\w, ]+\))$", block, re.MULTILINE):
            expected = eval(shape, {}, SIZES)
            shapes.append(name)
            assert tuple(names[name].shape) == expected, name
            assert torch.isfinite(names[name]).all(), name
    assert len(shapes) == TEXT.count("  # (") > 15
    assert {"encode", "decode", "sample", "log_marginal", "reconstruct"} <= set(re.findall(r"\.(\w+)\(", TEXT))
    torch.testing.assert_close(torch.from_numpy(names["x_mean"]), names["mean_images"])
    assert (names["photo"] == 1).all(), "a white picture, for a run on bits"
    assert ((names["log_px"] - names["iwae"][:10]) > -2).all()

    run, shared = Path("outputs/vae_mnist/RUN"), Path("runs/NAME")
    shutil.copy(run / "export" / "README.md", run)
    for pattern in shlex.split(SHARED):
        files = list(run.glob(pattern))
        assert files, pattern
        for file in files:
            (shared / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, shared / file.relative_to(run))
    x = torch.rand(2, 1, 8, 8).round()
    assert torch.equal(vae_exp.load(shared).encode(x).mean, vae_exp.load(run).encode(x).mean)
    assert evaluated(shared, "metrics=[elbo]")["elbo"] == pytest.approx(evaluated(run, "metrics=[elbo]")["elbo"])
