"""docs/extending.md, done as it says."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.runs import ROOT, command

from vae_exp.runs.trained import restore

TEXT = (ROOT / "docs" / "extending.md").read_text()
QUICK = ["trainer=debug", "encoder.hidden=[8]", "decoder.hidden=[8]"]


def write_files(folder: Path) -> None:
    """Writes each block that follows a `path`."""
    for path, block in re.findall(r"`(my_[\w/]+\.(?:py|yaml))`.*?\n\n```\w+\n(.*?)```", TEXT, re.DOTALL):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(block)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "cvae"])
@pytest.mark.parametrize("line", re.findall(r"python -m vae_exp (.*)", TEXT))
def test_the_examples_run(tmp_path, line, model):
    write_files(tmp_path)
    logger = [] if "logger=" in line else ["logger=none"]
    done = command(*line.split(), f"model={model}", *QUICK, *logger, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test/elbo" in done.stdout
    if "logger=lines" in line:
        assert "val/elbo" in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_the_metric_of_the_page_is_computed(tmp_path, run):
    write_files(tmp_path)
    folder, _ = run()
    (line,) = re.findall(r"python -m vae_exp.evaluate (.*)", TEXT)
    done = command(*line.replace("outputs/...", str(folder)).split(), module="vae_exp.evaluate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((folder / "evaluation.json").read_text())
    trained = restore(folder, accelerator="cpu")
    x, y = trained.images(50)
    with torch.no_grad():
        assert content["spread"] == pytest.approx(255 * float(trained.model.draw(x, y).px.mean.std()), rel=0.2)
    assert content["settings"]["spread"] == {"seed": 0, "num_images": 50, "unit": 255}
    assert f"test/spread  {content['spread']:.3f}" in done.stdout


def test_the_page_has_its_examples(tmp_path):
    write_files(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    names = ("likelihood/laplace", "prior/spline_flow", "objective/squared", "metrics/spread", "logger/lines")
    yamls = {f"my_conf/{name}.yaml" for name in names}
    assert files == {"my_parts.py", "my_objective.py", "my_metrics.py", "my_loggers.py", *yamls}
    assert len(re.findall(r"python -m vae_exp ", TEXT)) == 4
