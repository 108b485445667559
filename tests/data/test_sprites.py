"""The source `sprites`: pictures of known factors."""

from math import pi, prod

import pytest
import torch

from vae_exp.data import Sprites

AREAS = (21.8**2, pi * 15.5 * 9, 16.5**2 * (1 + pi / 4))  # square, ellipse, square and two half discs


@pytest.fixture(scope="module")
def source():
    return Sprites(train_size=300, val_size=40, test_size=50, seed=0)


@pytest.fixture(scope="module")
def splits(source):
    return source.load(None)


def combinations(*ranges):
    return torch.cartesian_prod(*(torch.tensor(list(r)) for r in ranges))


def centres(images):
    """`(N, 2)`: centre of mass from the left and from the top, in pixels."""
    mass = images[:, 0].double() / images.double().sum(dim=(1, 2, 3))[:, None, None]
    where = torch.arange(64).double() + 0.5
    return torch.stack([mass.sum(dim=1) @ where, mass.sum(dim=2) @ where], dim=1)


def test_images_are_bits_and_labels_are_shapes(source, splits):
    assert {name: tuple(split.x.shape) for name, split in splits.items()} == {
        "train": (300, 1, 64, 64), "val": (40, 1, 64, 64), "test": (50, 1, 64, 64),
    }  # fmt: skip
    for name, (x, y) in splits.items():
        assert x.dtype == torch.uint8
        assert x.unique().tolist() == [0, 255]
        assert torch.equal(y, source.factors(name)[:, 0])
        assert torch.equal(x, source.render(source.factors(name)))
    assert splits["train"].y.bincount().min() > 60
    with pytest.raises(ValueError, match="split all: choose one of"):
        source.factors("all")


def test_no_image_comes_twice_and_splits_hang_on_seed_and_own_size(source):
    factors = torch.cat([source.factors(name) for name in ("train", "val", "test")])
    assert len(factors.unique(dim=0)) == 390
    assert (factors.amin(0) == 0).all()
    assert torch.equal(factors.amax(0) + 1, torch.tensor(Sprites.sizes))
    more, other = Sprites(400, 40, 50, seed=0), Sprites(300, 40, 50, seed=1)
    for name in ("val", "test"):
        assert torch.equal(more.factors(name), source.factors(name))
        assert not torch.equal(other.factors(name), source.factors(name))
    assert torch.equal(more.factors("train")[:300], source.factors("train"))


def test_every_factor_is_drawn_evenly():
    factors = Sprites(20_000, 1, 1, seed=0).factors("train")
    for column, size in zip(factors.T, Sprites.sizes, strict=True):
        expected = 20_000 / size
        assert (column.bincount(minlength=size) - expected).abs().max() < 5 * expected**0.5


@pytest.mark.slow
def test_shapes_are_whole_and_of_their_size(source):
    factors = combinations(range(3), range(6), range(12), range(0, 32, 6), range(0, 32, 5))
    images = source.render(factors) > 0
    border = torch.ones(64, 64, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    # An outline comes within half a pixel of the border, so one row of bits may stand on it, a corner's.
    assert (images[:, 0] & border).sum(dim=(1, 2)).max() <= 4
    scale = 0.5 + 0.1 * factors[:, 1]
    area, expected = images.double().sum(dim=(1, 2, 3)), torch.tensor(AREAS)[factors[:, 0]] * scale**2
    assert (area - expected).abs().div(scale).max() < 45  # half the outline, where a side lies along the pixels
    means = torch.stack([a.mean() for a in (area / expected).split(12 * 6 * 7)])  # of each shape and scale
    assert (means - 1).abs().max() < 0.02


def test_centres_are_where_the_positions_say(source):
    positions = combinations((0, 2), (3, 5), (0, 7), range(32), (0, 11, 31))
    where = centres(source.render(positions))
    stated = 16 + 32 * positions[:, 3:] / 31
    assert (where - stated).abs().max() < 0.5
    assert (where - stated).mean(0).abs().max() < 0.05


def test_each_factor_changes_the_picture_and_nothing_else_does(source):
    base = torch.tensor([[1, 2, 5, 13, 20]])
    image = source.render(base)
    assert torch.equal(source.render(base.repeat(3, 1)), image.expand(3, -1, -1, -1))
    for factor, size in enumerate(Sprites.sizes):
        changed = base.repeat(size, 1)
        changed[:, factor] = torch.arange(size)
        assert len(source.render(changed).flatten(1).unique(dim=0)) == size


@pytest.mark.parametrize("place", [(0, 0), (15, 16), (31, 31), (7, 22)])
def test_every_combination_at_a_place_is_another_picture(source, place):
    images = source.render(combinations(range(3), range(6), range(12), [place[0]], [place[1]]))
    assert len(images.flatten(1).unique(dim=0)) == 3 * 6 * 12


@pytest.mark.slow
def test_every_combination_is_another_picture(source):
    weights = torch.randn(4096, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys = [
        source.render(combinations([shape], [scale], range(12), [x], range(32))).flatten(1).bool().double() @ weights
        for shape in range(3)
        for scale in range(6)
        for x in range(32)
    ]
    assert len((torch.cat(keys) * 1e8).round().unique(dim=0)) == prod(Sprites.sizes)


def test_a_rotation_is_a_rotation(source):
    """Six twelfths of a square's quarter turn are 45 degrees; three twelfths of a heart's whole turn are 90."""
    square = source.render(torch.tensor([[0, 5, 6, 0, 0]]))[0, 0] > 0
    assert square.any(dim=0).sum() == pytest.approx(21.8 * 2**0.5, abs=1.5)  # the diagonal
    start, quarter, half = (source.render(torch.tensor([[2, 5, k, 0, 0]]))[0, 0, :32, :32] for k in (0, 3, 6))
    assert (start.rot90(-1) != quarter).sum() <= 6  # clockwise, but for bits on the outline
    assert (start.rot90(-2) != half).sum() <= 6
    assert start.nonzero()[-1].tolist() == [30, 16]  # a heart stands on its tip


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((0, 1, 1), "data.source.train_size=0"),
        ((1, 0, 1), "data.source.val_size=0"),
        ((1, 1, -1), "data.source.test_size=-1"),
        ((221_183, 1, 1), "more than the 221184 existing images"),
    ],
)
def test_sizes_out_of_range_are_named(sizes, named):
    with pytest.raises(ValueError, match=named):
        Sprites(*sizes, seed=0)


@pytest.mark.parametrize("factors", [[[3, 0, 0, 0, 0]], [[0, 0, 0, 0, -1]], [[0, 0, 0, 0]]])
def test_factors_out_of_range_are_refused(source, factors):
    with pytest.raises(ValueError, match=r"factors \(N, 5\) from 0"):
        source.render(torch.tensor(factors))
