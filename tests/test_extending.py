"""docs/extending.md, done as it says."""

import re
from pathlib import Path

import pytest
from helpers.runs import ROOT, command

TEXT = (ROOT / "docs" / "extending.md").read_text()
QUICK = ["trainer=debug", "logger=none", "encoder.hidden=[8]", "decoder.hidden=[8]"]


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
    done = command(*line.split(), f"model={model}", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test/elbo" in done.stdout


def test_the_page_has_its_three_examples(tmp_path):
    write_files(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    yamls = {f"my_conf/{name}.yaml" for name in ("likelihood/laplace", "prior/spline_flow", "objective/squared")}
    assert files == {"my_parts.py", "my_objective.py", *yamls}
    assert len(re.findall(r"python -m vae_exp ", TEXT)) == 3
