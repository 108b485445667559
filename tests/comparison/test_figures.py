"""Curves, bands and figures: what is drawn is what was read, and no label lies over another."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from helpers.folders import write_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy.optimize import isotonic_regression

from vae_exp import charts
from vae_exp.comparison.curves import curves
from vae_exp.comparison.figures import band, coordinates, figures, spread
from vae_exp.comparison.groups import sections
from vae_exp.comparison.read import TERMS, read_runs


def compared(folder, by=()):
    found = sections(read_runs([str(folder)])[0], by, None)[0]
    return found, {group: own for s in found for group in s.groups if (own := curves(group, TERMS))}


def rows(elbo, steps=(9, 19, 29), seconds=1.0):
    return [
        {"step": step, "epoch": row, "seconds": seconds * (row + 1), "val/elbo": elbo + row, "val/kl": 1.0}
        for row, step in enumerate(steps)
    ]


def test_a_curve_is_the_mean_over_seeds_and_the_band_its_ends(tmp_path):
    values = np.random.default_rng(0).normal(-100, 3, 4)
    for seed, elbo in enumerate(values):
        write_run(tmp_path / f"{seed}", seed, rows=rows(elbo, seconds=seed + 1))
    _, found = compared(tmp_path)
    (own,) = found.values()
    each = values[:, None] + np.arange(3)
    np.testing.assert_allclose(own.mean["elbo"], each.mean(axis=0))
    np.testing.assert_allclose(own.low["elbo"], each.min(axis=0))
    np.testing.assert_allclose(own.high["elbo"], each.max(axis=0))
    assert own.axes == {"step": [9, 19, 29], "epoch": [0, 1, 2], "seconds": [2.5, 5, 7.5]}
    assert not own.is_cut
    assert "recon" not in own.mean


def test_a_curve_ends_where_the_first_seed_ended(tmp_path):
    write_run(tmp_path / "a", 0, rows=rows(-100.0))
    write_run(tmp_path / "b", 1, rows=rows(-90.0, steps=(9, 19)))
    write_run(tmp_path / "c", 2, rows=[])
    _, found = compared(tmp_path)
    (own,) = found.values()
    assert own.axes["step"] == [9, 19]
    assert own.mean["elbo"] == [-95, -94]
    assert own.is_cut


def test_what_one_seed_lacks_the_group_lacks(tmp_path):
    write_run(tmp_path / "a", 0, rows=rows(-100.0))
    old = [{key: value for key, value in row.items() if key != "seconds"} for row in rows(-90.0)]
    write_run(tmp_path / "b", 1, rows=old)
    ((section,), found) = compared(tmp_path)
    (own,) = found.values()
    assert np.isnan(own.axes["seconds"]).all()
    assert band(section, found, "elbo", "seconds") is None
    assert band(section, found, "elbo", "step") is not None


def test_long_curves_are_thinned_and_keep_their_end(tmp_path):
    write_run(tmp_path / "a", rows=rows(-1e4, steps=range(1, 1001)))
    _, found = compared(tmp_path)
    (own,) = found.values()
    assert len(own.axes["step"]) <= 300
    assert own.axes["step"][-1] == 1000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve groups of three seeds, several of them close together."""
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for place in range(12):
        for seed in range(3):
            model = ("vae", "beta_vae")[place % 2]
            config = {"model._target_": model, "objective.beta": 0.25 * 2 ** (place // 2)}
            elbo = -100 - 0.05 * place - 5 * (place // 6) + 0.1 * random.normal()
            write_run(folder / f"{place}_{seed}", seed, elbo, 10 + place / 5, choices={"model": model}, config=config)
    (section,), found = compared(folder)
    return section, found


def test_a_figure_shows_the_numbers(many):
    section, found = many
    figure = band(section, found, "elbo", "epoch")()
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 10]
    assert len(lines) == len(axes.collections) == 12
    for line, group in zip(lines, section.groups, strict=True):
        np.testing.assert_allclose(line.get_ydata(), found[group].mean["elbo"])
        np.testing.assert_allclose(line.get_xdata(), np.arange(10))
    assert [text.get_text() for text in axes.texts] == [section.name(group) for group in section.groups]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12


@pytest.mark.parametrize("name", ["elbo", "kl", "recon", "rate_distortion", "parallel"])
def test_no_label_lies_over_another_and_none_leaves_the_figure(many, name):
    section, found = many
    with __import__("matplotlib").rc_context(charts.day()):
        figure = figures(section, found, "step")[name]()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        (axes,) = figure.axes
        names = {section.name(group) for group in section.groups}
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text() in names]
    assert len(boxes) == 12
    for one, other in combinations(boxes, 2):
        assert min(one.y1, other.y1) - max(one.y0, other.y0) < 1.5  # pixels
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)


def test_rate_and_distortion_are_kl_and_recon(many):
    section, found = many
    (axes,) = figures(section, found, "step")["rate_distortion"]().axes
    dots = np.concatenate([dots.get_offsets() for dots in axes.collections])
    runs = [run for group in section.groups for run in group.runs]
    np.testing.assert_allclose(dots, [[run.numbers["test/kl"], run.numbers["test/recon"]] for run in runs])
    diagonals = [line for line in axes.lines if line.get_alpha() == 0.35]
    for line in diagonals:
        assert np.ptp(np.add(*line.get_data())) == pytest.approx(0, abs=1e-9)  # kl + recon = -elbo


def test_parallel_coordinates_go_through_the_config_to_the_elbo(many):
    section, _ = many
    columns = coordinates(section, section.groups)
    assert [column["title"] for column in columns] == ["model", "objective.beta", "test/kl", "test/recon", "test/elbo"]
    runs = [run for group in section.groups for run in group.runs]
    elbos = np.array([run.numbers["test/elbo"] for run in runs])
    np.testing.assert_allclose(columns[-1]["places"], (elbos - elbos.min()) / np.ptp(elbos))
    betas = np.log2([run.config["objective.beta"] for run in runs])
    np.testing.assert_allclose(columns[1]["places"], (betas - betas.min()) / np.ptp(betas))  # a log scale
    assert [text for _, text in columns[1]["ticks"]] == ["0.25", "0.5", "1", "2", "4", "8"]
    assert [text for _, text in columns[0]["ticks"]] == ["beta_vae", "vae"]


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_as_near_as_their_gap_allows(seed):
    """The nearest places in the sense of least squares, found by scipy."""
    random = np.random.default_rng(seed)
    wanted = random.uniform(0, 1, 12) ** random.integers(1, 4)
    places = np.array(spread(list(wanted), 0.05, -10, 10))
    order = np.argsort(wanted)
    shift = 0.05 * np.arange(12)
    np.testing.assert_allclose(places[order], isotonic_regression(wanted[order] - shift).x + shift)
    inside = np.array(spread(list(wanted), 0.05, 0, 1))[order]
    assert inside[0] >= 0
    assert inside[-1] <= 1 + 1e-12
    assert all(b - a >= 0.05 - 1e-12 for a, b in pairwise(inside))
    full = np.array(spread(list(wanted), 0.5, 0, 1))[order]
    np.testing.assert_allclose(full, np.linspace(0, 1, 12))


def test_files_are_one_figure_twice(many, tmp_path):
    section, found = many
    png, svg = charts.save_twice(figures(section, found, "step")["kl"], tmp_path / "kl", "compare")
    with Image.open(png) as image:
        assert image.info["Source"] == "compare"
        assert image.width == 1080
    assert "beta_vae, beta=8" in svg.read_text()


def test_what_diverged_does_not_flatten_the_others_and_is_told(tmp_path):
    for place, elbo in enumerate((-100.0, -101.0, -102.0, -1e6)):
        write_run(tmp_path / f"{place}", elbo=elbo, config={"optimizer.lr": place + 1}, kl=5.0)
    ((section,), found) = compared(tmp_path)
    (axes,) = band(section, found, "elbo", "step")().axes
    low, high = axes.get_ylim()
    assert -140 < low < high < -90
    assert axes.texts[-1].get_text() == "lr=4 ↓ -1e+06"
    (axes,) = figures(section, found, "step")["rate_distortion"]().axes
    assert axes.get_ylim()[1] < 120
    last = coordinates(section, section.groups)[-1]
    assert [text for _, text in last["ticks"]] == ["≤ -102", "-100"]
    np.testing.assert_allclose(last["places"], [1, 0.5, 0, 0])
