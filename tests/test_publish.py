"""docs/publish.md, line by line, with two seeds of two epochs."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from helpers.runs import ROOT, command
from scipy import stats

PAGE = (ROOT / "docs" / "publish.md").read_text()
LINES = re.findall(r"^python -m (vae_exp[.\w]*) (.*)$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SMALL = ("trainer=cpu", "trainer.max_epochs=2", "logger=csv", "encoder.hidden=[8]", "decoder.hidden=[8]")


@pytest.mark.slow
def test_seeds_become_a_table_and_a_run_a_frame(tmp_path, monkeypatch):
    for module, words in LINES:
        given = shlex.split(words.replace("range(0,5)", "range(0,2)").replace("num_samples=1000", "num_samples=5"))
        small = SMALL if "-m" in given else ()
        done = command(*given, *small, module=module, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    jobs = json.loads(Path("outputs/sweeps/paper/sweep.json").read_text())["jobs"]
    elbos = [job["metrics"]["test/elbo"] for job in jobs if job["varied"]["model"] == "vae"]
    low, high = stats.t.interval(0.95, len(elbos) - 1, stats.tmean(elbos), stats.sem(elbos))
    lines = Path("paper/table.tex").read_text().splitlines()
    row = next(line for line in lines if re.match(r"(\\textbf{)?vae\b", line))
    assert f"$-${-stats.tmean(elbos):.2f}" in row
    assert f"{(high - low) / 2:.2f}" in row
    names: dict = {}
    exec(BLOCKS[0].replace("outputs/vae_digits/RUN", jobs[0]["folder"]), names)
    assert names["val"]["val/elbo"].iloc[-1] == pytest.approx(jobs[0]["metrics"]["val/elbo"])
    exec(BLOCKS[1], names)
    assert isinstance(names["jobs"], pd.DataFrame)
    assert len(names["jobs"]) == len(jobs) == 4
