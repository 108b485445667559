"""What pixels are: their support against brute force, the strings that run.json keeps, bits per dim by counting."""

from itertools import product

import pytest
import torch
from torch.distributions import constraints

from vae_exp.data import Representation
from vae_exp.data.representation import floats
from vae_exp.supports import levels

# What run folders have under bound.representation, by levels, binarize, dequantize.
TITLES = {
    (256, "none", False): "256 levels",
    (256, "none", True): "256 levels, dequantised",
    (256, "dynamic", False): "bits, dynamic",
    (256, "static", False): "bits, static",
    (256, "threshold", False): "bits, threshold",
    (17, "none", False): "17 levels",
    (17, "dynamic", False): "bits, dynamic",
    (2, "none", False): "bits, as distributed",
    (2, "dynamic", False): "bits, dynamic",
    ("unit", "none", False): "real numbers in [0, 1]",
    (None, "none", False): "real numbers",
}
ALL = [Representation(*options) for options in TITLES]
each = pytest.mark.parametrize("representation", ALL, ids=str)


def stored(representation, n=4000):
    """Random pixels as a file of this kind holds them, `(N, 1, 1, 1)`, the ends among them."""
    u = torch.rand(n, 1, 1, 1)
    u[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    if not isinstance(representation.levels, int):
        return u if representation.levels else 2e3 * u - 1e3
    return ((representation.levels - 1) * u).round().mul(255 / (representation.levels - 1)).round().byte()


def seen(representation, in_training=False):
    """Random pixels as a likelihood is shown them."""
    x = representation.fix(stored(representation), torch.Generator().manual_seed(0), in_training)
    x = representation.view(x) if in_training else floats(x)
    if representation.dequantize:  # the noise may be 0, and the highest level with nearly 1 is rounded to 1
        assert torch.tensor(255 + (1 - 2**-24)) / 256 == 1
        x[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    return x


@each
def test_titles_are_those_of_run_folders_of_before(representation):
    assert representation.title == TITLES[representation.levels, representation.binarize, representation.dequantize]


@each
@pytest.mark.parametrize("in_training", [True, False])
def test_what_is_shown_lies_in_the_support(representation, in_training):
    torch.manual_seed(0)
    x = seen(representation, in_training)
    assert x.dtype == torch.float32
    assert representation.support.check(x).all()
    representation.check("train", stored(representation))


SETS = [
    constraints.boolean,
    levels,
    constraints.unit_interval,
    constraints.real,
    constraints.positive,
    constraints.nonnegative,
    constraints.nonnegative_integer,
    constraints.integer_interval(0, 9),
    constraints.interval(-1, 2),
    constraints.interval(0.0, 0.5),
    constraints.half_open_interval(0.0, 1.0),
    constraints.greater_than_eq(-0.1),
]


@each
@pytest.mark.parametrize("support", SETS, ids=str)
def test_whether_data_lie_in_a_set_is_what_brute_force_finds(representation, support):
    every = bool(support.check(seen(representation)).all())
    assert representation.lies_in(support, (2, 3, 3)) == every
    assert representation.lies_in(constraints.independent(support, 3), (2, 3, 3)) == every


@each
def test_whether_data_lie_in_a_product_of_sets_is_what_each_factor_says(representation):
    """Rows of a table with columns of several kinds: an event is `(D,)`."""
    for one, other in product(SETS, SETS):
        expected = representation.lies_in(one, (1,)) and representation.lies_in(other, (1,))
        table = constraints.cat([one, other], dim=-1, lengths=[3, 2])
        assert representation.lies_in(table, (5,)) == expected
        assert representation.lies_in(constraints.stack([one, other], dim=-1), (2,)) == expected


@pytest.mark.parametrize(("own", "other"), list(product(ALL, ALL)), ids=str)
def test_pixels_made_like_others_lie_where_these_do_or_are_refused(own, other):
    needs_grey = other.binarize != "none" or (other.is_bits and own.levels != 2)
    is_byte = isinstance(own.levels, int)
    if (needs_grey and not is_byte) or (other.dequantize and own.levels != 256):
        with pytest.raises(ValueError, match=r"data\.(binarize|dequantize)"):
            own.like(other)
        return
    made = own.like(other)
    assert made.levels == own.levels
    assert own.like(own) == own
    if isinstance(other.levels, int) and is_byte:
        torch.manual_seed(0)
        assert other.support.check(seen(made)).all()


def test_bits_per_dim_of_dequantised_levels_are_the_bits_of_the_levels():
    """A density that is flat within each level, with the mass of the level: nothing is lost by the noise."""
    torch.manual_seed(0)
    mass = torch.rand(256, dtype=torch.float64).softmax(0)
    x = Representation(256, dequantize=True).view(torch.arange(256, dtype=torch.uint8))
    density = 256 * mass[(256 * x).long()]
    bits = -density.log2() + Representation(256, dequantize=True).bits_offset(is_mass=False)
    torch.testing.assert_close(bits, -mass.log2())


@each
def test_a_mass_is_counted_in_bits_as_it_is_and_no_other_density_than_of_noisy_levels(representation):
    assert representation.bits_offset(is_mass=True) == 0
    if not representation.dequantize:
        with pytest.raises(ValueError, match="no bound" if representation.support.is_discrete else "no bits"):
            representation.bits_offset(is_mass=False)
