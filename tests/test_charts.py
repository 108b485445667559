"""The charts: what is drawn is what was given, in the file and on the page."""

import base64

import numpy as np
import pytest
from PIL import Image

from vae_exp import charts


def test_the_heat_map_shows_the_numbers():
    """Opacity is the share of the largest; dimensions are rows, validations columns."""
    kl = [[0.0, 1.0, 4.0], [2.0, 3.0, 0.5]]
    (axes,) = charts.heatmap(kl, [9, 19], ["z0", "z1", "z2"])().axes
    image = np.asarray(axes.images[0].get_array())
    assert image.shape == (3, 2, 4)
    np.testing.assert_allclose(image[..., 3], np.array(kl).T / 4)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z0", "z1", "z2"]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left, right) == (4, 24)  # each validation is a column around its step
    assert bottom > top


def test_a_curve_shows_the_numbers():
    points = ((0, 2.7), (10, 3.0), (20, 2.4))
    rows = [{"step": str(step), "train/kl": "", "val/kl": str(value)} for step, value in points]
    draw = charts.curves(rows, "kl", "KL, nats per image")
    assert draw is not None
    (axes,) = draw().axes
    (line,) = axes.lines
    assert list(map(tuple, line.get_xydata())) == list(points)
    assert (line.get_label(), axes.get_ylabel()) == ("val", "KL, nats per image")
    assert charts.curves(rows, "elbo", "") is None


def test_the_first_tenth_may_leave_the_scale():
    rows = [{"step": str(step), "train/elbo": str(-1000 if step < 5 else -100 - step)} for step in range(0, 100, 4)]
    draw = charts.curves(rows, "elbo", "")
    assert draw is not None
    low, high = draw().axes[0].get_ylim()
    assert -220 < low < -196
    assert -112 < high < -100


@pytest.mark.parametrize("active", [None, [True, False, True]])
def test_bars_are_in_the_order_of_the_kl(active):
    (axes,) = charts.bars([0.5, 0.0, 2.0], ["z0", "z1", "z2"], active)().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z2", "z0", "z1"]
    lengths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    assert lengths == {0: 2.0, 1: 0.5, 2: 0.0}


def test_a_file_says_who_made_it_and_a_page_has_a_chart_by_day_and_by_night(tmp_path):
    draw = charts.bars([1.0, 2.0], ["z0", "z1"])
    with Image.open(charts.save(draw, tmp_path / "kl.png", "evaluate, test images")) as image:
        assert image.info["Source"] == "evaluate, test images"
        assert image.size == (810, 270)
    pictures = {name: base64.b64decode(address.partition(",")[2]) for name, address in charts.svg(draw).items()}
    assert charts.svg(draw) == charts.svg(draw)
    assert pictures["day"] != pictures["night"]
    assert all(picture.startswith(b"<?xml") and b"nats per image" in picture for picture in pictures.values())
