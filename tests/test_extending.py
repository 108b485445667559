"""docs/extending.md, done as it says."""

import re
from pathlib import Path

import pytest
from conftest import command

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
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


def test_the_page_has_its_four_examples(tmp_path):
    write_files(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    yamls = {
        f"my_conf/{name}.yaml"
        for name in ("likelihood/laplace", "prior/spline_flow", "objective/squared", "logger/lines")
    }
    assert files == {"my_parts.py", "my_objective.py", "my_loggers.py", *yamls}
    assert len(re.findall(r"python -m vae_exp ", TEXT)) == 4
