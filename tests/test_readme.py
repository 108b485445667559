"""README, docs/train.md and the list of options: commands are real, numbers are kept, nothing is left out."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.runs import ROOT, composed
from omegaconf import OmegaConf

from vae_exp.config import CONF
from vae_exp.training.job import train

TEXT = (ROOT / "README.md").read_text()
PAGES = TEXT + (ROOT / "docs" / "train.md").read_text()
OPTIONS = (ROOT / "docs" / "reference" / "options.md").read_text()
COMMANDS = sorted(set(re.findall(r"^python -m vae_exp ((?!resume=latest)[^#\n]*)", PAGES, re.MULTILINE)))
EXPECTED = OmegaConf.load(Path(CONF) / "experiment" / "quickstart.yaml").expected


def test_the_first_commands_are_the_two():
    first = TEXT[: TEXT.index("## Use")]
    assert re.findall(r"^(make \w+)", first, re.MULTILINE) == ["make demo", "make test"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z-]+)`? ", TEXT)) <= set(targets)


@pytest.mark.parametrize(("target", "wanted"), [("demo", ["."]), ("test", [".", "'.[dev]'"])])
def test_make_installs_no_more_than_it_needs(target, wanted, tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    said = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"--editable (\S+)", said) == wanted


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_composes(line):
    first_of_each = [re.sub(r",.*", "", arg) for arg in shlex.split(line) if arg != "-m"]
    composed(*first_of_each)


def test_every_option_it_names_exists():
    rows = re.findall(r"^\| (`.*?`).* \| (.*) \|$", OPTIONS, re.MULTILINE)
    assert len(rows) > 15
    for groups, options in rows:
        named = set(re.findall(r"`(\w+)`(?! may)", options.replace("`cvae`)", "")))
        for group in re.findall(r"`(\w+)`", groups):
            assert named == {path.stem for path in (Path(CONF) / group).glob("*.yaml")}, group


def test_every_file_it_links_to_exists():
    for link in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_it_states_the_number_of_the_experiment():
    assert f"**{EXPECTED.value:g}** nats per image (± {EXPECTED.tolerance:g}" in TEXT
    assert len(TEXT.splitlines()) < 90


@pytest.mark.slow
def test_the_demo_gives_the_number(tmp_path):
    """For another seed than the number was measured with."""
    cfg = composed("experiment=quickstart", "seed=1", "logger=csv", "trainer.enable_progress_bar=false")
    elbo = train(cfg, tmp_path)[EXPECTED.metric]
    assert elbo == pytest.approx(EXPECTED.value, abs=EXPECTED.tolerance)
