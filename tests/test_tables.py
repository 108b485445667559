"""docs/tables.md, command by command, and the tables of scikit-learn as CSV."""

import re
import shlex

import numpy as np
import pytest
from helpers.runs import ROOT, command, composed, record
from sklearn import datasets

from vae_exp.training.job import train

LOADERS = {
    "breast_cancer": (datasets.load_breast_cancer, "rows of 30 real, 1 binary"),
    "wine": (datasets.load_wine, "rows of 13 real, 1 count"),
    "diabetes": (datasets.load_diabetes, "rows of 11 real"),
    "digits": (datasets.load_digits, "rows of 59 count, 6 binary"),
}


def write(name, path):
    """A table of scikit-learn, its target last; of wine as texts, with a tenth of the other entries missing."""
    frame = LOADERS[name][0](as_frame=True).frame
    frame = frame.astype(int) if name == "digits" else frame  # 5.0 in a file is a real number, 5 a count
    frame.to_csv(path, index=False)


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path):
    frame = datasets.load_wine(as_frame=True).frame
    grape = frame.pop("target").map(dict(enumerate(["Barolo", "Grignolino", "Barbera"])))
    frame = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.1)
    frame.assign(grape=grape, id=range(len(frame))).to_csv(tmp_path / "wine.csv", index=False)
    frame.assign(grape=grape, id=range(len(frame))).tail(5).to_csv(tmp_path / "new.csv", index=False)
    blocks = "".join((ROOT / "docs" / "tables.md").read_text().split("```bash")[1:])
    lines = re.findall(r"^python -m (vae_exp[.\w]*) (.*)$", blocks, re.MULTILINE)
    assert len(lines) == 7
    small = ["trainer=cpu", "trainer.max_epochs=1", "logger=csv", "encoder.hidden=[8]", "decoder.hidden=[8]"]
    for module, words in lines:
        run = next(iter(sorted(tmp_path.glob("outputs/vae_table/*"))), None)
        given = [word.replace("outputs/...", str(run)) for word in shlex.split(words)]
        done = command(*given, *(small if module == "vae_exp" else []), cwd=tmp_path, module=module)
        assert done.returncode == 0, done.stderr
    written = {path.name for path in run.glob("images/*/*.csv")}
    assert written == {"samples.csv", "imputed.csv", "anomalies.csv", "input.csv"}
    assert "nats per row" in (run / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_table_of_scikit_learn_learns(name, tmp_path):
    write(name, tmp_path / "table.csv")
    options = ("data=table", f"data.source.path={tmp_path}/table.csv", "trainer=cpu", "logger=csv", "report=false")
    small = ("encoder.hidden=[32]", "decoder.hidden=[32]", "latent_dim=4", "~callbacks.pictures")
    begun, ended = (
        train(composed(*options, *small, f"trainer.max_epochs={epochs}"), tmp_path / str(epochs)) for epochs in (1, 25)
    )
    assert ended["test/elbo"] > begun["test/elbo"] + 1
    found = record(tmp_path / "25")["bound"]
    assert found["representation"] == LOADERS[name][1]
    assert found["units"] == "nats per row"
    assert found["kind"] == ("mass" if name == "digits" else "density")
