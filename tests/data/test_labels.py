"""Few labels: which training images keep theirs, and how batches come to hold some."""

import re
from collections import Counter

import pytest
import torch
from helpers.runs import composed

from vae_exp.config import ConfigError
from vae_exp.data import Batches, Images, Split
from vae_exp.runs.build import build, prepare

SIZES = (100, 60, 40)  # of the classes


class Numbered:
    """An image's two bytes are its number; sorted by class, with splits of its own."""

    def fetch(self, root): ...

    def load(self, root):
        number = torch.arange(sum(SIZES))
        x = torch.stack([number // 256, number % 256], dim=1).byte().view(-1, 1, 1, 2)
        y = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
        return {name: Split(x.clone(), y.clone()) for name in ("train", "val", "test")}


def numbers(x):
    return (x[..., 0] * 255 * 256 + x[..., 1] * 255).round().long().flatten()


def images(**options) -> Images:
    data = Images(Numbered(), ".", [1, 1, 2], **({"num_classes": 3, "batch_size": 20} | options))
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("labelled", [3, 4, 5, 6, 100, 120])
def test_labels_are_kept_of_as_many_images_of_each_class(labelled):
    data = images(labelled=labelled)
    y, truth = data.splits["train"].y, Numbered().load(None)["train"].y
    counts = torch.bincount(y[y >= 0], minlength=3)
    assert counts.sum() == labelled
    assert counts.max() - counts.min() <= 1
    assert torch.equal(y[y >= 0], truth[y >= 0])
    assert set(y[y < 0].tolist()) == {-1}
    assert torch.equal(data.splits["train"].x, Numbered().load(None)["train"].x)
    for name in ("val", "test"):
        assert torch.equal(data.splits[name].y, truth)


def test_the_draw_hangs_on_the_seed_of_the_data_alone():
    def kept(**options):
        return (images(labelled=30, **options).splits["train"].y >= 0).nonzero().flatten().tolist()

    assert kept() == kept(train_seed=7) == kept(batch_size=10)
    assert kept() != kept(seed=1)


def test_every_image_may_keep_its_label_and_each_class_may_get_one_more():
    """Over the seeds an image is drawn as often as its class allows; a label left over falls to any class."""
    drawn, extra = torch.zeros(200), Counter()
    for seed in range(300):
        y = images(labelled=31, seed=seed).splits["train"].y
        drawn += y >= 0
        extra[int(torch.bincount(y[y >= 0], minlength=3).argmax())] += 1
    assert all(abs(extra[k] - 100) < 5 * (300 * 2 / 9) ** 0.5 for k in range(3))
    for part, size in zip(drawn.split(SIZES), SIZES, strict=True):
        p = (31 / 3) / size
        assert (part - 300 * p).abs().max() < 5 * (300 * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("per_batch", [1, 7, 19])
def test_each_batch_holds_labelled_images_first(per_batch):
    data = images(labelled=12, labelled_per_batch=per_batch)
    loader = data.train_dataloader()
    for _ in range(3):
        batches = list(loader)
        assert len(batches) == len(loader) == 10
        for _, y in batches:
            assert (y[:per_batch] >= 0).all()
            assert (y[per_batch:] == -1).all()
            assert len(y) == 20


def test_labelled_and_unlabelled_images_are_gone_through_in_turn():
    """Whatever the number of epochs: the visits of two labelled images differ by one at most, those of others too."""
    data = images(labelled=12, labelled_per_batch=7)
    loader, truth = data.train_dataloader(), Numbered().load(None)["train"].y
    visits, orders = torch.zeros(200, dtype=torch.long), set()
    for _ in range(5):
        seen = torch.cat([numbers(x) for x, _ in loader])
        orders.add(tuple(seen.tolist()))
        visits += torch.bincount(seen, minlength=200)
        has_label = data.splits["train"].y >= 0
        for some in (visits[has_label], visits[~has_label]):
            assert some.max() - some.min() <= 1
    assert len(orders) == 5
    assert visits.sum() == 5 * 200
    for x, y in loader:
        given = truth[numbers(x)]
        assert torch.equal(y[:7], given[:7])


def test_a_pass_before_training_has_every_image_once_with_the_labels_that_are_kept():
    data = images(labelled=12, labelled_per_batch=7)
    x, y = (torch.cat(parts) for parts in zip(*data.training_images(), strict=True))
    assert numbers(x).sort()[0].tolist() == list(range(200))
    assert (y >= 0).sum() == 12


def test_null_leaves_the_order_as_it_is():
    plain, few = images(), images(labelled=12)
    for (a, _), (b, _) in zip(plain.train_dataloader(), few.train_dataloader(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_loader_continues():
    def loader():
        return images(labelled=12, labelled_per_batch=7).train_dataloader()

    whole, resumed = loader(), loader()
    passes = [[numbers(x).tolist() for x, _ in whole] for _ in range(3)]
    resumed.epoch, resumed.position = 1, 4
    assert [numbers(x).tolist() for x, _ in resumed] == passes[1][4:]
    assert [numbers(x).tolist() for x, _ in resumed] == passes[2]


def test_processes_share_the_labelled_images_of_a_batch():
    split = images(labelled=12).splits["train"]

    def batches(rank, world_size):
        loader = Batches(split, 20, shuffle=True, seed=0, rank=rank, world_size=world_size, drop_last=True)
        loader.labelled_per_batch = 6
        return [(numbers(x / 255).tolist(), int((y >= 0).sum())) for x, y in loader]

    whole, ranks = batches(0, 1), [batches(rank, 2) for rank in (0, 1)]
    for (every, _), (a, in_a), (b, in_b) in zip(whole, *ranks, strict=True):
        assert sorted(a + b) == sorted(every)
        assert (in_a, in_b) == (3, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"labelled": 2}, "data.labelled=2: at least 3 are needed, one for each class"),
        ({"labelled": 0}, "data.labelled=0: at least 3"),
        ({"labelled": 201}, "data.labelled=201 is more than the 200 training images"),
        ({"labelled": 150}, "data.labelled=150: that is 50 images of each class, and class 2 has 40"),
        ({"labelled": 12, "num_classes": None}, "data.labelled=12: the data have no labels (data.num_classes=null)"),
        ({"labelled_per_batch": 5}, "data.labelled_per_batch=5: with a number of data.labelled choose 1 to 19"),
        ({"labelled": 12, "labelled_per_batch": 20}, "data.labelled_per_batch=20: with"),
        ({"labelled": 12, "labelled_per_batch": 0}, "data.labelled_per_batch=0: with"),
    ],
)
def test_numbers_that_cannot_be_are_named(options, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        images(**options)


def test_without_an_unlabelled_image_there_is_nothing_to_mix():
    class Balanced(Numbered):
        def load(self, root):
            return {name: Split(x[:120], torch.arange(120) % 3) for name, (x, _) in super().load(root).items()}

    data = Images(Balanced(), ".", [1, 1, 2], num_classes=3, batch_size=20, labelled=120, labelled_per_batch=5)
    with pytest.raises(ValueError, match="every training image has a label"):
        data.setup("fit")


def test_a_run_is_given_few_labels():
    _, data = build(composed("model=m2", "data=digits", "data.labelled=100", "data.labelled_per_batch=10"))
    prepare(data)
    assert data.splits["train"].y.add(1).bincount().tolist() == [len(data.splits["train"].y) - 100, *[10] * 10]
    assert all((y >= 0).sum() == 10 for _, y in data.train_dataloader())


def test_labels_in_excess_are_for_a_loss_that_weights_them_down():
    with pytest.raises(ConfigError, match="choose model=m2"):
        build(composed("data=digits", "data.labelled=100", "data.labelled_per_batch=10"))
