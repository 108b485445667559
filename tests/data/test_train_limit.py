"""A limit on the training images: what is drawn, what is told of it, and who counts with it."""

import re
from collections import Counter

import pytest
import torch
from helpers.runs import SMALL, composed, record

from vae_exp.config import ConfigError
from vae_exp.data import Images, Split
from vae_exp.runs.build import build, prepare
from vae_exp.training.job import train

SIZES = (100, 60, 40)  # of the classes


class Numbered:
    """An image's byte is its number; sorted by class, without splits of its own."""

    def fetch(self, root): ...

    def load(self, root):
        y = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
        return {"train": Split(torch.arange(sum(SIZES)).byte().view(-1, 1, 1, 1), y)}


def images(train_limit, **options) -> Images:
    sizes = {"val_size": 20, "test_size": 30, "batch_size": 2}
    data = Images(Numbered(), ".", [1, 1, 1], 3, train_limit=train_limit, **(sizes | options))
    data.setup("fit")
    data.setup("test")
    return data


def numbers(data, name="train"):
    return data.splits[name].x.flatten().tolist()


@pytest.mark.parametrize("limit", [4, 50, 51, 149])
def test_of_every_class_its_share_is_kept_and_the_other_splits_do_not_change(limit):
    data, whole = images(limit), images(None)
    assert len(set(numbers(data))) == limit
    assert set(numbers(data)) <= set(numbers(whole))
    for name in ("val", "test"):
        assert numbers(data, name) == numbers(whole, name)
    there, kept = (Counter(each.splits["train"].y.tolist()) for each in (whole, data))
    for label, number in there.items():
        assert abs(kept[label] - number * limit / 150) < 1
    assert data.contents.images["train"] == limit
    assert f"data.train_limit={limit} of those left" in str(data.contents)


def test_the_draw_hangs_on_the_seed_of_the_data_alone():
    assert numbers(images(30)) == numbers(images(30, train_seed=7)) == numbers(images(30, batch_size=10))
    assert numbers(images(30)) != numbers(images(30, seed=1))
    assert numbers(images(150)) == numbers(images(None))


def test_more_than_there_are_is_refused():
    wrong = re.escape("data.train_limit=151, but 150 images are left to train on: give fewer, or null for all")
    with pytest.raises(ValueError, match=wrong):
        images(151)
    with pytest.raises(ConfigError, match=r"data\.batch_size=16 is more than the 8 training images"):
        prepare(build(composed(*SMALL, "data.train_limit=8"))[1])


def test_what_needs_the_number_of_training_images_reads_the_limit():
    cfg = composed("data.train_limit=1000", "data.batch_size=100", "objective=beta_tcvae")
    assert cfg.trainer.max_epochs == 250  # 2,500 steps of 10 an epoch
    assert cfg.objective.train_size == 1000
    assert cfg.data.train_size == 55_000  # checked before images are drawn
    assert composed("objective=beta_tcvae").objective.train_size == 55_000
    with pytest.raises(ConfigError, match="an epoch has 2 batches"):
        train(composed(*SMALL, "data.train_limit=32", "trainer.val_check_interval=3"), "unused")


def test_a_run_states_it(tmp_path):
    train(composed(*SMALL, "data.train_limit=32", "test=false"), tmp_path)
    kept = record(tmp_path)
    assert kept["contents"]["images"] == {"train": 32, "val": 16, "test": 64}
    assert kept["contents"]["notes"] == ["data.train_limit=32 of those left to train on"]
    assert kept["steps"] == 4
