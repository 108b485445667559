"""docs/results.md: its numbers are those of results/runs.json, and its commands are real."""

import importlib
import json
import math
import re
import shlex
import sys

import pytest
import torch
from helpers.runs import ROOT, composed
from hydra import compose, initialize_config_dir

from vae_exp.config import CONF
from vae_exp.likelihoods import Categorical as Levels
from vae_exp.likelihoods import ContinuousBernoulli
from vae_exp.runs.build import build

sys.path.insert(0, str(ROOT / "results"))
run = importlib.import_module("run")
uses = importlib.import_module("uses")
sys.path.pop(0)
PAGE = (ROOT / "docs" / "results.md").read_text()
PLAIN = next(iter(run.SECTIONS["bits"].rows))
RUNS = json.loads((ROOT / "results" / "runs.json").read_text())


def listed(text):
    """The commands of the code blocks, with what stands behind them."""
    shared = dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))
    lines = re.findall(r"^(python .*?)  # (.*)$", text, re.MULTILINE)
    return {re.sub(r"\$(\w+)", lambda found: shared[found[1]], line): said for line, said in lines}


def test_the_page_is_what_the_numbers_give():
    assert run.render(RUNS) == PAGE
    assert set(RUNS) <= set(run.all_commands())


def test_every_command_is_listed_with_its_number():
    text = listed(PAGE[: PAGE.index("## One model")])
    assert set(text) == set(run.all_commands())
    for command, said in text.items():
        metrics = RUNS.get(command, {}).get("metrics")
        assert ("not run" in said or "FAILED" in said) == (metrics is None)
        if metrics is not None:
            pixels = 560 * math.log(2)
            error, elbo = metrics.get("test/error"), metrics.get("test/elbo")
            value = 100 * error if "model=m2" in command else elbo
            if "frey_face" in command:
                value = -elbo / pixels + (8 if "dequantize" in command else 0)
            assert said.split(",")[0] == f"{value:.2f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", run.SECTIONS)
def test_every_command_can_be_run(name):
    section = run.SECTIONS[name]
    for row in section.rows:
        for command in section.commands(row)[:1]:
            words = shlex.split(command)
            options = words[3:] if words[1] == "-m" else words[2:]
            assert (ROOT / words[1]).is_file() or words[1:3] == ["-m", "vae_exp"]
            build(composed(*options))


def test_a_table_holds_mean_error_and_what_is_worse():
    plain, flow = (run.SECTIONS["bits"].commands(row) for row in (PLAIN, "prior `flow`"))
    elbos = dict(zip((*plain, *flow), (-100.0, -102.0, -110.0, -111.0), strict=True))
    runs = {command: {"metrics": {"test/elbo": elbo}, "seconds": 30.0} for command, elbo in elbos.items()}
    text = run.table("bits", runs)
    # s.e. of two values is half their distance
    assert f"| {PLAIN} | -101.00 | 1.00 | 2 |  | 30 |" in text
    assert f"| prior `flow` | -110.50 | 0.50 | 2 | -9.50 ± {math.hypot(1, 0.5):.2f}, **worse** | 30 |" in text
    assert "| prior `vamp` | not known | not known | 0 |" in text


def test_bits_per_dim_of_what_is_uniform_are_eight():
    """A mass of 1/256 on every level, and a density of 1 on [0, 1]."""
    x = torch.randint(256, (1, 1, 28, 20)) / 255
    mass = Levels()(torch.zeros(1, 256, 28, 20)).log_prob(x).item()
    density = ContinuousBernoulli()(torch.zeros(1, 1, 28, 20)).log_prob(x).item()
    assert run.bits_per_dim(mass, is_density=False) == pytest.approx(8, abs=1e-4)
    assert run.bits_per_dim(density, is_density=True) == pytest.approx(8, abs=1e-4)


def test_what_failed_is_kept_and_said():
    command = run.all_commands()[0]
    text = run.render({command: {"failed": "ValueError", "seconds": 3.0}})
    assert "1 failed" in text
    assert listed(text)[command].startswith("FAILED after 3 s")


@pytest.mark.slow
def test_one_model_is_scored_and_used_by_real_commands():
    for command in uses.COMMANDS[1:]:
        module, *chosen = shlex.split(command)[1:]
        with initialize_config_dir(CONF, version_base="1.3"):
            compose(module.split(".")[1], overrides=chosen)
    if not uses.USES.exists():
        assert "Not run yet." in PAGE
        return
    found = json.loads(uses.USES.read_text())
    assert set(found) == {*uses.COMMANDS, "on"}
    numbers = found[uses.COMMANDS[1]]["numbers"]
    assert f"| `nll` | {numbers['nll']:.4g} ± {numbers['nll_se_images']:.2g} ± {numbers['nll_se_draws']:.2g} |" in PAGE
