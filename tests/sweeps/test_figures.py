"""The figures that a sweep ends with."""

import json

import pytest
from helpers.runs import SMALL, command
from omegaconf import OmegaConf

from vae_exp import charts
from vae_exp.config import ConfigError
from vae_exp.sweeps.figures import Against, Curves, Learning, Rows


@pytest.fixture
def jobs(tmp_path):
    """Three runs of two values, with a number that is 2 and 4 at 1, 10 at 100."""
    found = []
    for num, (dim, value) in enumerate(((1, 2.0), (1, 4.0), (100, 10.0))):
        folder = tmp_path / str(num)
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"status": "finished", "metrics": {"test/kl": value}}))
        found.append(({"latent_dim": str(dim), "seed": str(num)}, folder))
    return found


def test_numbers_are_drawn_against_what_is_varied(jobs, tmp_path, monkeypatch):
    """The line goes through the means over the seeds; each seed is a dot."""
    drawn = []
    monkeypatch.setattr("vae_exp.sweeps.figures.save", lambda draw, path, origin: drawn.append(draw()) or path)
    Against([["test/kl"]], "latent_dim")(jobs, tmp_path / "against.png")
    (axes,) = drawn[0].axes
    line, dots = axes.lines
    assert line.get_xydata().tolist() == [[1, 3], [100, 10]]
    assert dots.get_xydata().tolist() == [[1, 2], [1, 4], [100, 10]]
    assert axes.get_xscale() == "log"


def test_learning_is_drawn_against_the_images_seen(jobs, tmp_path, monkeypatch):
    """A panel for each width, a colour for each seed, and for the second column a dashed line."""
    for _, folder in jobs:
        (folder / "config.yaml").write_text("data: {batch_size: 50}\n")
        (folder / "metrics.csv").write_text("step,train/elbo,val/elbo\n1,-4,\n3,-2,-3\n")
    drawn = []
    monkeypatch.setattr("vae_exp.sweeps.figures.read_config", OmegaConf.load)
    monkeypatch.setattr("vae_exp.sweeps.figures.save", lambda draw, path, origin: drawn.append(draw()) or path)
    Learning(["train/elbo", "val/elbo"], "latent_dim", "nats")(jobs, tmp_path / "learning.png")
    first, second = drawn[0].axes
    assert (len(first.lines), len(second.lines)) == (4, 2)
    full, dashed = second.lines
    assert full.get_xydata().tolist() == [[100, -4], [200, -2]]
    assert dashed.get_xydata().tolist() == [[200, -3]]
    assert (full.get_linestyle(), dashed.get_linestyle()) == ("-", "--")


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (lambda: Against([["test/kl"]], "beta"), "key=beta: the sweep varies no such number"),
        (lambda: Learning(["train/elbo"], "beta", "nats"), "panel=beta: the sweep does not vary it"),
        (lambda: Against([["test/nothing"]], "latent_dim"), "test/nothing: no run has such a number"),
    ],
)
def test_what_cannot_be_drawn_is_told(jobs, tmp_path, figure, said):
    with pytest.raises(ConfigError, match=said):
        figure()(jobs, tmp_path / "figure.png")


def test_rows_are_of_samples_or_reconstructions():
    with pytest.raises(ConfigError, match="what=classes: choose samples or reconstructions"):
        Rows("classes")


@pytest.mark.slow
def test_a_sweep_draws_what_its_config_says(tmp_path):
    figures = (
        "+sweep.figures={samples:{_target_:vae_exp.sweeps.figures.Rows,num_images:3},"
        "elbo:{_target_:vae_exp.sweeps.figures.Curves,figure:elbo},"
        "none:{_target_:vae_exp.sweeps.figures.Curves,figure:iwae}}"
    )
    done = command("-m", *SMALL, "encoder.out_features=4,5", figures, "sweep.name=s", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in (tmp_path / "outputs/sweeps/s").glob("*.png")} == {"samples", "elbo"}
    assert "sweep.figures.none: there is no figure: iwae: the runs have" in done.stdout


def test_lines_are_drawn_of_the_columns_that_were_logged():
    rows = [{"step": "0", "val/a": "1", "val/b": ""}, {"step": "5", "val/a": "3", "val/b": "2"}]
    figure = charts.lines(rows, {"val/a": "A", "val/b": "B"}, "y", is_log=True)()
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [[[0, 1], [5, 3]], [[5, 2]]]
    assert charts.lines(rows, {"val/c": "C"}, "y") is None
    assert Curves("elbo").axis == "step"
