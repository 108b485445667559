"""docs/data.md, done as it says, with few images and few steps."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.runs import ROOT, record
from hydra.core.override_parser.overrides_parser import OverridesParser

import vae_exp

TEXT = (ROOT / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LINES = [shlex.split(line)[3:] for line in re.findall(r"^python -m vae_exp (?!data=hub).*", TEXT, re.MULTILINE)]
QUICK = ("trainer=debug", "logger=none", "report=false", "callbacks.pictures=null", "callbacks.curves=null")


def line(word):
    """The one line of the page that has a word."""
    (found,) = [words for words in LINES if any(word in one for one in words)]
    return found


def test_lines_can_be_read():
    assert len(LINES) == 6
    for words in LINES:
        OverridesParser.create().parse_overrides([word for word in words if word != "-m"])


@pytest.mark.slow
def test_arrays_as_it_says(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[1], {})
    folder, metrics = run(*line("sounds"), *QUICK, small=())
    of_run = record(folder)
    assert of_run["contents"]["images"] == {"train": 400, "val": 100, "test": 100}
    assert any("scaled to (x - " in note for note in of_run["contents"]["notes"])
    assert "labels: 0 is high, 1 is low" in of_run["contents"]["notes"]
    assert "test/elbo" in metrics


@pytest.mark.slow
def test_augmentation_as_it_says(run):
    folder, _ = run(*line("augment"), *QUICK, small=())
    assert "train/elbo is a bound for those" in record(folder)["contents"]["notes"][0]


@pytest.mark.data
@pytest.mark.slow
def test_fashion_mnist_as_folders_of_classes(tmp_path, monkeypatch, real_data, run):
    monkeypatch.chdir(tmp_path)
    block = BLOCKS[0].replace('Path("data")', f"Path({str(real_data)!r})").replace("6000", "600").replace("1000", "100")
    exec(block, {})
    folder, metrics = run(*line("clothes"), *QUICK, "data.val_size=100", small=())
    assert record(folder)["contents"] == {
        "images": {"train": 500, "val": 100, "test": 100},
        "left_out": {},
        "notes": [],
        "unit": "image",
    }
    assert len(list(Path("clothes/train").iterdir())) == 10
    assert "test/elbo" in metrics


@pytest.mark.slow
def test_attributes_as_it_says(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[2], {})
    folder, metrics = run(*line("faces"), *QUICK, small=())
    assert record(folder)["contents"]["notes"] == ["attributes.csv: smiling, light"]
    assert record(folder)["bound"]["of"] == "log p(x|smiling, light)"
    assert "test/elbo" in metrics
    own = vae_exp.Run(folder)
    for what, options in (
        ("traversal", {"along": "condition"}),
        ("reconstructions", {"input": "faces/0.png", "label": {"smiling": 1, "light": 200}}),
        ("classes", {}),
    ):
        assert own.generate(what, accelerator="cpu", progress=False, **options).pictures
