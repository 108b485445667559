"""The data module: splits, bits, noise, batches."""

import re
from collections import Counter

import pytest
import torch
from helpers.runs import composed
from omegaconf import OmegaConf
from torch.distributions import constraints

from vae_exp.data import Batches, Images, Split
from vae_exp.runs.build import make
from vae_exp.runs.trained import Trained


class Grey:
    """Images of one level each: 0, 1, ..., 255, 0, ... in two classes; `official` names splits of its own."""

    def __init__(self, size=1000, official=()):
        self.size, self.official = size, official

    def fetch(self, root): ...

    def load(self, root):
        level = (torch.arange(self.size) % 256).byte()
        x = level[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
        y = torch.arange(self.size) * 2 // self.size  # sorted by class
        return {name: Split(x.clone(), y.clone()) for name in ("train", *self.official)}


def images(**options) -> Images:
    options = {"source": Grey(), "val_size": 100, "test_size": 200, "batch_size": 50} | options
    data = Images(root=".", image_shape=[1, 4, 4], num_classes=2, **options)
    data.setup("fit")
    data.setup("test")
    return data


def test_splits_are_disjoint_complete_and_by_class():
    data = Images(Grey(size=256), ".", [1, 4, 4], num_classes=2, val_size=32, test_size=64, batch_size=16)
    data.setup("fit")
    data.setup("test")
    levels = {name: split.x[:, 0, 0, 0].tolist() for name, split in data.splits.items()}
    assert sorted(levels["train"] + levels["val"] + levels["test"]) == list(range(256))
    assert {name: len(level) for name, level in levels.items()} == {"train": 160, "val": 32, "test": 64}
    for split in data.splits.values():
        count = Counter(split.y.tolist())
        assert count[0] == count[1]


def test_the_seed_of_the_data_fixes_the_split():
    def val(seed):
        return images(seed=seed).splits["val"].x

    assert torch.equal(val(0), val(0))
    assert not torch.equal(val(0), val(1))


def test_official_splits_are_kept():
    data = images(source=Grey(official=("val", "test")), val_size=None, test_size=None)
    assert [len(data.splits[name].x) for name in ("train", "val", "test")] == [1000, 1000, 1000]


def test_test_images_are_touched_by_test_alone():
    data = Images(Grey(), ".", [1, 4, 4], num_classes=2, val_size=100, test_size=200, batch_size=50)
    data.setup("fit")
    assert set(data.splits) == {"train", "val"}


@pytest.mark.parametrize("binarize", ["static", "dynamic"])
def test_evaluation_bits_are_fixed_and_fair(binarize):
    """P(bit = 1) is the grey level: each level's share of ones within 4.5 standard errors."""
    source = Grey(size=256 * 40, official=("test",))
    split = images(source=source, binarize=binarize, test_size=None).splits["test"]
    assert set(split.x.unique().tolist()) == {0, 255}
    p = torch.arange(256) / 255
    share = split.x.view(40, 256, 16).double().div(255).mean(dim=(0, 2))
    assert share[0] == 0
    assert share[255] == 1
    error = (p * (1 - p) / (40 * 16)).sqrt()
    assert ((share - p).abs() <= 4.5 * error).all()
    assert torch.equal(split.x, images(source=source, binarize=binarize, test_size=None).splits["test"].x)


def visits(data: Images, times: int = 2) -> list[torch.Tensor]:
    """Training images as the model sees them, sorted by level and visit."""
    seen = []
    loader = data.train_dataloader()
    for _ in range(times):
        seen.append(torch.cat([x for x, _ in loader]))
    return seen


def test_dynamic_bits_are_drawn_anew_at_each_visit_and_static_ones_are_not():
    first, second = visits(images(binarize="dynamic"))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert first.mean() == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(first, second)
    static = images(binarize="static").splits["train"].x
    assert set(static.unique().tolist()) == {0, 255}
    threshold = images(binarize="threshold").splits["val"]
    assert set(threshold.x.unique().tolist()) == {0, 255}


class Real(Grey):
    """Pixels that are real numbers: of each image one, from -1 to 1 or, squared, from 0 to 1."""

    def __init__(self, power=1, **options):
        super().__init__(**options)
        self.power = power

    def load(self, root):
        x = torch.linspace(-1, 1, self.size)[:, None, None, None].expand(-1, 1, 4, 4) ** self.power
        return {"train": Split(x.contiguous(), torch.arange(self.size) % 2)}


@pytest.mark.parametrize(
    ("power", "levels", "support", "title"),
    [(1, None, constraints.real, "real numbers"), (2, "unit", constraints.unit_interval, "real numbers in [0, 1]")],
)
def test_real_numbers_are_left_as_they_are(power, levels, support, title):
    data = images(source=Real(power), levels=levels)
    assert (data.representation.support, data.representation.title) == (support, title)
    everywhere = torch.cat([split.x for split in data.splits.values()])[:, 0, 0, 0]
    torch.testing.assert_close(everywhere.sort()[0], (torch.linspace(-1, 1, 1000) ** power).sort()[0], rtol=0, atol=0)
    for batches, split in ((data.training_images(), "train"), (data.val_dataloader(), "val")):
        seen = torch.cat([x for x, _ in batches])
        assert torch.equal(seen.flatten().sort()[0], data.splits[split].x.flatten().sort()[0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"source": Real(), "levels": 256},
            "data.levels=256 is for 256 levels, but the pixels are torch.float32: set unit",
        ),
        ({"levels": None}, "data.levels=null is for real numbers, but the pixels are torch.uint8: set 2 to 256"),
        ({"levels": "unit"}, "data.levels=unit is for real numbers in [0, 1], but the pixels are torch.uint8"),
        ({"source": Real(), "levels": "unit"}, "data.levels=unit, but the pixels of train lie in [-1, 1]: scale"),
        ({"source": Real(power=-0.5), "levels": None}, "data.levels=null: some pixels of train are nan or infinite"),
        ({"levels": 2}, "data.levels=2 is for bits"),
        ({"levels": 1}, "data.levels=1: choose 2 to 256"),
        ({"levels": "real"}, "data.levels=real: choose"),
        (
            {"levels": None, "binarize": "dynamic"},
            "data.binarize=dynamic is for grey levels, but these pixels are real",
        ),
        ({"levels": "unit", "binarize": "static"}, "data.binarize=static"),
        ({"levels": None, "dequantize": True}, "data.dequantize=true is for 256 grey levels, not for real"),
    ],
)
def test_pixels_that_are_not_what_levels_says(options, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        images(**options)


def test_levels_become_floats_in_the_unit_interval():
    (seen,) = visits(images(), times=1)
    assert seen.dtype == torch.float32
    assert seen.min() == 0
    assert seen.max() == 1
    assert torch.equal((seen * 255).round() / 255, seen)


def test_dequantised_levels_stay_in_their_bins_and_fill_them():
    data = images(dequantize=True)
    first, second = visits(data)
    assert not torch.equal(first, second)
    assert first.max() <= 1
    val = data.splits["val"].x
    assert val.dtype == torch.float32
    fraction = (val * 256) % 1
    assert fraction.mean() == pytest.approx(0.5, abs=4 / (12 * fraction.numel()) ** 0.5)
    assert torch.equal(val, images(dequantize=True).splits["val"].x)


def test_each_epoch_has_every_image_once_in_another_order():
    batches = Batches(Split(torch.arange(12).view(-1, 1, 1, 1), torch.arange(12)), 4, shuffle=True, seed=0)
    orders = [[y for _, ys in batches for y in ys.tolist()] for _ in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert all(x.flatten().tolist() == y.tolist() for x, y in batches)


@pytest.mark.parametrize("train", [True, False])
def test_processes_share_each_global_batch(train):
    how = {"shuffle": train, "drop_last": train, "seed": 3}
    split = Split(torch.arange(21).view(-1, 1, 1, 1), torch.arange(21))
    whole = [sorted(y.tolist()) for _, y in Batches(split, 4, **how)]
    ranks = [[y.tolist() for _, y in Batches(split, 4, **how, rank=rank, world_size=2)] for rank in (0, 1)]
    if train:
        assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == whole
        assert {len(batch) for rank in ranks for batch in rank} == {2}
    else:
        assert sorted(y for rank in ranks for batch in rank for y in batch) == list(range(21))


def test_each_step_and_each_process_has_its_own_noise():
    split = Split(torch.zeros(8, 1, 1, 1), torch.zeros(8, dtype=torch.long))
    seeds = set()
    for rank in (0, 1):
        batches = Batches(split, 2, True, 0, rank, world_size=2)
        seeds |= {batches.noise_seed for _ in range(3) for _ in batches}
    assert len(seeds) == 2 * 3 * 4


def test_evaluation_has_the_same_noise_at_every_epoch():
    batches = Batches(Split(torch.zeros(8, 1, 1, 1), torch.zeros(8)), 2, shuffle=False, seed=0)
    first, second = ([batches.noise_seed for _ in batches] for _ in range(2))
    assert first == second
    assert len(set(first)) == 4


def test_an_incomplete_last_batch_is_dropped_or_given():
    split = Split(torch.zeros(10, 1, 1, 1), torch.arange(10))
    for shuffle in (True, False):
        for drop_last, sizes in ((True, [4, 4]), (False, [4, 4, 2])):
            batches = Batches(split, 4, shuffle, seed=0, drop_last=drop_last)
            assert [len(y) for _, y in batches] == sizes
            assert len(batches) == len(sizes)


def test_training_images_are_all_training_images_in_random_order():
    """Levels 0 to 255 once each, so that an image is known by its level."""
    data = images(source=Grey(size=256), val_size=32, test_size=64, batch_size=16, eval_batch_size=50)
    batches = data.training_images()
    passes = [torch.cat([x[:, 0, 0, 0] for x, _ in batches]) for _ in range(2)]
    here = data.splits["train"].x[:, 0, 0, 0] / 255
    for seen in passes:
        assert torch.equal(seen.sort()[0], here)
        assert not torch.equal(seen, here)
    assert [len(y) for _, y in batches] == [50, 50, 50, 10]
    again = torch.cat([x[:, 0, 0, 0] for x, _ in data.training_images()])
    assert torch.equal(again, passes[0])
    other = images(source=Grey(size=256), val_size=32, test_size=64, batch_size=16, train_seed=1)
    assert not torch.equal(torch.cat([x[:, 0, 0, 0] for x, _ in other.training_images()]), again)


def test_training_images_are_seen_as_in_training_and_leave_training_alone():
    bits = images(binarize="dynamic")
    first, second = (torch.cat([x for x, _ in batches]) for batches in [bits.training_images()] for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first.sum(dim=(1, 2, 3)).sort()[0], second.sum(dim=(1, 2, 3)).sort()[0])
    noisy = torch.cat([x for x, _ in images(dequantize=True).training_images()])
    assert noisy.dtype == torch.float32
    assert ((noisy * 256) % 1 != 0).double().mean() > 0.99
    before, after = images(binarize="dynamic"), images(binarize="dynamic")
    list(after.training_images())
    for (a, _), (b, _) in zip(before.train_dataloader(), after.train_dataloader(), strict=True):
        assert torch.equal(a, b)


def test_training_images_are_shared_out_among_processes():
    data = images(source=Grey(size=256), val_size=32, test_size=64, batch_size=16, eval_batch_size=50)
    shares = []
    for rank in (0, 1):
        batches = data.training_images()
        batches.rank, batches.world_size = rank, 2
        shares.append(torch.cat([x[:, 0, 0, 0] for x, _ in batches]))
    assert torch.equal(torch.cat(shares).sort()[0], data.splits["train"].x[:, 0, 0, 0] / 255)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"val_size": None}, "data.val_size"),
        ({"val_size": 5000}, "data.val_size"),
        ({"test_size": 1000}, "data.test_size"),
        ({"batch_size": 900}, "data.batch_size=900"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        images(**options)


def test_files_that_are_not_what_the_config_says():
    with pytest.raises(ValueError, match=r"data\.image_shape=\[1, 5, 5\]"):
        Images(Grey(), ".", [1, 5, 5], num_classes=2, val_size=1, test_size=1).setup("fit")
    with pytest.raises(ValueError, match=r"data\.num_classes=1"):
        Images(Grey(), ".", [1, 4, 4], num_classes=1, val_size=1, test_size=1).setup("fit")


@pytest.mark.parametrize("name", ["mnist_5k", "digits", "fake"])
def test_sets_that_need_no_download(name):
    cfg = composed(f"data={name}")
    data = make(cfg, "data")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert all(tuple(split.x.shape[1:]) == data.image_shape for split in data.splits.values())
    if name != "fake":  # which draws its own test split: here each split has each class by its share
        shares = [torch.bincount(split.y) / len(split.y) for split in data.splits.values()]
        assert max((share - shares[0]).abs().max() for share in shares) <= 1 / 150


@pytest.mark.parametrize("changed", ["data.val_size=100", "data.test_size=null"])
@pytest.mark.parametrize("name", ["mnist_5k", "digits", "fake"])
def test_the_config_states_the_number_of_training_images(name, changed):
    """Whatever is cut off; what cannot be cut is an error of the data module, not of the arithmetic."""
    cfg = composed(f"data={name}", changed)
    data = make(cfg, "data")
    if changed.endswith("null") and name != "fake":
        with pytest.raises(ValueError, match=r"data\.test_size=None"):
            data.setup("fit")
    else:
        data.setup("fit")
        assert cfg.data.train_size == len(data.splits["train"].x)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "binarized_mnist", "frey_face"])
def test_the_config_states_the_number_of_real_training_images(name, real_data):
    cfg = composed(f"data={name}", f"data.root={real_data}")
    data = make(cfg, "data")
    data.setup("fit")
    assert cfg.data.train_size == len(data.splits["train"].x)


def test_a_number_of_training_images_that_is_not_theirs():
    assert len(images(train_size=700).splits["train"].x) == 700
    with pytest.raises(ValueError, match=r"data\.train_size=600, but 700 images .* set data\.train_size=700"):
        images(train_size=600)


def test_real_numbers_are_drawn_from_the_least_to_the_greatest_of_images_all_over_the_split(tmp_path):
    """Not of the first ones, which may be of one kind; by one rule for the pictures of training and of the commands."""
    data = images(source=Real(power=1), levels=None)  # sorted, from -1 to 1
    for stage, split in data.splits.items():
        x = split.x
        shown = data.shown(x, stage)
        torch.testing.assert_close(shown, (x - x.min()) / (x.max() - x.min()), rtol=0, atol=0.02)
        assert torch.equal(Trained(tmp_path, OmegaConf.create({}), None, data, split=stage).shown(x), shown)


def test_levels_are_drawn_as_they_are():
    x = torch.rand(3, 1, 4, 4) * 3 - 1  # a mean may leave [0, 1]
    assert images().shown(x, "val") is x
