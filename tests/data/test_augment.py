"""`data.augment`: transforms of training images alone, and `data.folds`."""

import pytest
import torch
from helpers.runs import composed
from torchvision.transforms import v2

from vae_exp.config import ConfigError
from vae_exp.data import Representation, Split
from vae_exp.data.augment import Augment
from vae_exp.data.cut import fold_out
from vae_exp.runs.build import build, prepare

FLIP = "data.augment=[{_target_: torchvision.transforms.v2.RandomHorizontalFlip, p: 1.0}]"


def data(*words):
    """Twenty-four small images, some to train on."""
    small = ("data=fake", "data.image_shape=[1,4,4]", "data.source.size=24", "data.val_size=8", "data.batch_size=4")
    _, made = build(composed(*small, *words))
    prepare(made)
    made.setup("test")
    return made


def test_training_images_alone_are_changed():
    plain, flipped = data(), data(FLIP)
    for (x, y), (z, w) in zip(plain.train_dataloader(), flipped.train_dataloader(), strict=True):
        assert torch.equal(x.flip(-1), z)
        assert torch.equal(y, w)
    for name in ("val_dataloader", "test_dataloader", "training_images"):  # parts start from the images as they are
        for (x, _), (z, _) in zip(getattr(plain, name)(), getattr(flipped, name)(), strict=True):
            assert torch.equal(x, z)
    assert "train/elbo is a bound for those" in str(flipped.contents)
    assert "augmented" not in str(plain.contents)


def test_each_image_has_its_own_random_numbers_which_a_resumed_run_repeats():
    half = FLIP.replace("1.0", "0.5")
    first, again = (torch.cat([x for x, _ in data(half).train_dataloader()]) for _ in range(2))
    assert torch.equal(first, again)
    images = torch.cat([x for x, _ in data().train_dataloader()])
    is_flipped = [torch.equal(x.flip(-1), z) for x, z in zip(images, first, strict=True)]
    assert 0 < sum(is_flipped) < len(images)


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        (v2.Resize(9), r"data\.augment\[0\]: Resize makes torch.uint8 \(1, 9, 9\) of torch.uint8 \(1, 4, 4\)"),
        (v2.ToDtype(torch.float32), "ToDtype makes torch.float32"),
        (v2.Normalize([0.5, 0.5], [1, 1]), r"data\.augment\[0\]: Normalize fails"),
        ("flip", r"data\.augment\[0\]=flip: a transform is needed"),
    ],
)
def test_what_makes_other_images_is_refused(transform, named):
    with pytest.raises(ValueError, match=named):
        Augment([transform], [1, 4, 4], Representation())


def test_bits_stay_bits():
    bits = torch.randint(2, (2, 1, 4, 4), dtype=torch.uint8) * 255
    assert torch.equal(Augment([v2.RandomVerticalFlip(1.0)], [1, 4, 4], Representation(2))(bits), bits.flip(-2))
    with pytest.raises(ConfigError, match=r"data\.augment: the pixels are no longer"):
        Augment([v2.Lambda(lambda x: x // 2)], [1, 4, 4], Representation(2))(bits)


@pytest.mark.parametrize(("total", "folds"), [(20, 5), (23, 5), (7, 7)])
def test_folds_are_a_partition_by_class(total, folds):
    split = Split(torch.arange(total).byte()[:, None, None, None], torch.arange(total) % 3)
    pairs = [fold_out(split, folds, fold, torch.Generator().manual_seed(1)) for fold in range(folds)]
    assert sorted(int(i) for _, test in pairs for i in test.x.flatten()) == list(range(total))
    for train, test in pairs:
        assert sorted([*train.x.flatten().tolist(), *test.x.flatten().tolist()]) == list(range(total))
        assert len(test.y) - total // folds in (0, 1)
        for k in range(3):
            assert abs(int((test.y == k).sum()) - int((split.y == k).sum()) / folds) < 1


def test_a_fold_is_the_test_split_and_the_rest_is_cut():
    made = [data("data.folds=3", f"data.fold={k}", "data.train_size=null", "data.val_size=4") for k in range(3)]
    assert [one.contents.images for one in made] == [{"train": 12, "val": 4, "test": 8}] * 3
    assert len({one.checksums["test"] for one in made}) == 3
    assert len({one.folded for one in made}) == 1
    assert "fold 1 of 3 is tested; the test images of the set are left aside" in str(made[1].contents)
    assert data().folded == ""
    with pytest.raises(ConfigError, match=r"12 images are left to train on: set data\.train_size=null"):
        data("data.folds=3", "data.val_size=4")
    with pytest.raises(ConfigError, match=r"data\.folds=3 data\.fold=3: .* from 0 to 2"):
        data("data.folds=3", "data.fold=3")
    with pytest.raises(ValueError, match=r"data\.folds=30: there are only 24 images"):
        fold_out(Split(torch.zeros(24, 1, 1, 1), torch.zeros(24)), 30, 0, torch.Generator())
