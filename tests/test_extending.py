"""docs/extending.md and docs/extending_runs.md, done as they say."""

import json
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from helpers.runs import ROOT, command
from hydra.utils import get_class
from omegaconf import OmegaConf

from vae_exp.runs.trained import restore

TEXT = "\n".join((ROOT / "docs" / name).read_text() for name in ("extending.md", "extending_runs.md"))
# Where each part is in a run that was read back.
PARTS = {
    "encoder": lambda trained: trained.model.encoder,
    "posterior": lambda trained: trained.model.posterior,
    "likelihood": lambda trained: trained.model.likelihood,
    "prior": lambda trained: trained.model.prior,
    "objective": lambda trained: trained.model.objective,
    "corruption": lambda trained: trained.model.corruption,
    "data": lambda trained: trained.data.source,
}
COMMANDS = re.findall(r"python -m vae_exp (.*)", TEXT.replace("\\\n", " "))
QUICK = ("trainer=debug", "report=false", "callbacks.pictures=null", "callbacks.curves=null", "hydra.run.dir=run")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Each block that follows a `path`, written there; Python finds the modules."""
    for path, block in blocks().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(block)
        if path.endswith(".py"):
            monkeypatch.delitem(sys.modules, Path(path).stem, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def blocks() -> dict[str, str]:
    return dict(re.findall(r"`(my_[\w/]+\.(?:py|yaml))`.*?\n\n```\w+\n(.*?)```", TEXT, re.DOTALL))


def own_options(line: str) -> dict[str, str]:
    """The options of `my_conf` that a command chooses, by group."""
    return {
        group: name for group, name in re.findall(r"(\w+)=(\w+)", line) if f"my_conf/{group}/{name}.yaml" in blocks()
    }


def trained_by(line: str, folder: Path, *more: str) -> Path:
    done = command(*line.split(), *QUICK, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "test/elbo" in done.stdout
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "cvae"])
@pytest.mark.parametrize("line", [line for line in COMMANDS if own_options(line).keys() <= PARTS.keys()])
def test_a_run_has_the_parts_of_the_page(folder, line, model):
    run = trained_by(line, folder, f"model={model}", "logger=none")
    trained = restore(run, accelerator="cpu", allow=[path.stem for path in folder.glob("my_*.py")])
    for group, name in own_options(line).items():
        stated, of_run = OmegaConf.load(folder / f"my_conf/{group}/{name}.yaml"), trained.cfg[group]
        if group == "data":
            stated, of_run = stated.source, of_run.source
        assert of_run._target_ == stated._target_
        assert type(PARTS[group](trained)) is get_class(stated._target_)


@pytest.mark.slow
def test_the_logger_and_the_callback_of_the_page_are_called(folder):
    (line,) = [line for line in COMMANDS if not own_options(line).keys() <= PARTS.keys()]
    run = trained_by(line, folder)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    norms = [row["decoder_norm"] for row in rows if "decoder_norm" in row]
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    norm = sum(w.square().sum() for name, w in weights.items() if name.startswith("decoder.")).sqrt()
    assert len(norms) == sum("val/elbo" in row for row in rows) == 2  # epochs
    assert norms[-1] == pytest.approx(float(norm), rel=1e-5)


def done_on(path: Path, name: str, folder: Path) -> CompletedProcess[str]:
    """The command of the page on a trained run."""
    (line,) = re.findall(rf"python -m vae_exp.{name} (.*)", TEXT)
    done = command(*line.replace("outputs/...", str(path)).split(), module=f"vae_exp.{name}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_metric_of_the_page_is_computed(folder, run):
    path, _ = run()
    done = done_on(path, "evaluate", folder)
    content = json.loads((path / "evaluation.json").read_text())
    trained = restore(path, accelerator="cpu")
    x, y = trained.images(50)
    with torch.no_grad():
        assert content["spread"] == pytest.approx(255 * float(trained.model.draw(x, y).px.mean.std()), rel=0.2)
    assert content["settings"]["spread"] == {"seed": 0, "num_images": 50, "unit": 255}
    assert f"test/spread  {content['spread']:.3f}" in done.stdout


@pytest.mark.slow
def test_the_what_of_the_page_is_made(folder, run):
    path, _ = run()
    done_on(path, "generate", folder)
    out = path / "images" / "differences"
    content = json.loads((out / "differences.json").read_text())
    assert (out / "differences.png").stat().st_size > 0
    assert content["num_images"] == 20
    trained = restore(path, accelerator="cpu")
    x, y = trained.images(20)
    with torch.no_grad():
        difference = (trained.model.draw(x, y).px.mean[0] - x).abs().mean()
    assert content["difference"] == pytest.approx(float(difference), rel=0.2)  # other noise


def test_the_pages_have_one_example_of_each_kind():
    """Each has a class or function of its own, or zuko's, and a command that chooses it."""
    kinds = {path.split("/")[1] for path in blocks() if path.endswith(".yaml")}
    assert kinds == {*PARTS, "metrics", "what", "logger", "callbacks"}
    yamls = [block for path, block in blocks().items() if path.endswith(".yaml")]
    named = {name for block in yamls for name in re.findall(r"(my_\w+)\.\w+$", block, re.MULTILINE)}
    assert {f"{name}.py" for name in named} == {path for path in blocks() if path.endswith(".py")}
    assert {group for line in COMMANDS for group in own_options(line)} == kinds - {"metrics", "what"}


def test_examples_are_short():
    assert all(len(block.splitlines()) <= 25 for block in blocks().values())
