"""The source `npz`: arrays of a user's own."""

import re

import numpy as np
import pytest
import torch
from helpers.runs import composed
from torch.distributions import constraints

from vae_exp.config import ConfigError
from vae_exp.data import NPZ
from vae_exp.runs.build import build, make, prepare
from vae_exp.supports import levels

RNG = np.random.default_rng(0)
GREY = RNG.integers(256, size=(12, 1, 4, 6), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(12, 3, 4, 6), dtype=np.uint8)
LABELS = np.arange(12) % 3


def load(tmp_path, image_shape=(1, 4, 6), **arrays):
    np.savez(tmp_path / "my.npz", **arrays)
    source = NPZ(str(tmp_path / "my.npz"), image_shape)
    source.fetch(tmp_path)
    return source.load(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (GREY, GREY),
        (GREY[:, 0], GREY),
        (GREY.transpose(0, 2, 3, 1), GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
        (GREY / 7 - 3, (GREY / 7 - 3).astype(np.float32)),
        ((GREY / 255).astype(np.float16), (GREY / 255).astype(np.float16).astype(np.float32)),
        (GREY > 99, (GREY > 99).astype(np.uint8) * 255),
    ],
    ids=["grey", "without C", "grey last", "colour", "colour last", "float64", "float16", "bool"],
)
def test_arrays_come_as_images(x, expected, save, tmp_path):
    save(tmp_path / "my.npz", x=x, y=LABELS.astype(np.uint8))
    splits = NPZ("my.npz", expected.shape[1:]).load(tmp_path)  # below data.root
    assert list(splits) == ["train"]
    assert splits["train"].x.dtype == (torch.uint8 if expected.dtype == np.uint8 else torch.float32)
    assert splits["train"].x.is_contiguous()
    np.testing.assert_array_equal(splits["train"].x, expected)
    assert splits["train"].y.dtype == torch.int64
    assert splits["train"].y.tolist() == LABELS.tolist()


def test_splits_of_its_own(tmp_path):
    splits = load(tmp_path, x_train=GREY, x_val=GREY[:3], x_test=GREY[:2], y_val=LABELS[:3], names=np.array("other"))
    assert {name: len(split.x) for name, split in splits.items()} == {"train": 12, "val": 3, "test": 2}
    assert splits["val"].y.tolist() == [0, 1, 2]
    assert splits["train"].y.tolist() == [-1] * 12
    assert set(load(tmp_path, x_train=GREY, x_test=GREY)) == {"train", "test"}


def test_of_cubes_channels_come_first(tmp_path):
    x = RNG.integers(256, size=(5, 3, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load(tmp_path, (3, 3, 3), x=x)["train"].x, x)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"images": GREY}, "holds images: either x is needed, or x_train"),
        ({}, "holds nothing: either x is needed"),
        ({"x_test": GREY}, "holds x_test: either x is needed, or x_train"),
        ({"x": GREY, "x_test": GREY}, "holds x, x_test: either x is needed, or x_train (with"),
        ({"x": COLOUR}, "x is of shape (12, 3, 4, 6), but data.image_shape=[1, 4, 6] needs (N, 1, 4, 6)"),
        ({"x": GREY.reshape(12, -1)}, "x is of shape (12, 24)"),
        ({"x": GREY[:0]}, "x is of shape (0, 1, 4, 6)"),
        ({"x": np.uint8(3)}, "x is of shape ()"),
        ({"x": GREY.astype(complex)}, "x is complex128: a whole number"),
        ({"x": GREY // 128}, "the bytes of x are 0 and 1, but white is 255"),
        ({"x": GREY, "y": LABELS[:5]}, "y is int64 (5,), whole numbers are needed, one for each of 12 images"),
        ({"x": GREY, "y": LABELS / 2}, "y is float64 (12,)"),
        ({"x_train": GREY, "x_val": GREY, "y_val": LABELS[:, None]}, "y_val is int64 (12, 1)"),
    ],
)
def test_what_is_not_accepted_is_named(arrays, named, tmp_path):
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        load(tmp_path, **arrays)
    assert str(tmp_path / "my.npz") in str(error.value)


def test_no_pickle_is_read(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(tmp_path, x=np.array([print], dtype=object))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_damaged_file_is_named(content, tmp_path):
    (tmp_path / "my.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"my\.npz is corrupt: not an \.npz file"):
        NPZ("my.npz", (1, 4, 6)).load(tmp_path)


def test_one_array_alone(tmp_path):
    np.save(tmp_path / "my.npy", GREY)
    with pytest.raises(ValueError, match=r"one array without a name; save it with numpy.savez\('my', x=...\)"):
        NPZ("my.npy", (1, 4, 6)).load(tmp_path)


def test_missing_file_is_named_by_its_key(tmp_path):
    _, data = build(composed("data=npz"))
    with pytest.raises(ConfigError, match=r"data\.source\.path is not given.*data\.source\.path=FILE"):
        prepare(data)
    _, data = build(composed("data=npz", "data.source.path=no.npz", f"data.root={tmp_path}"))
    with pytest.raises(ConfigError, match=rf"data\.source\.path=no\.npz: there is no .* and no {tmp_path}/no\.npz"):
        prepare(data)


@pytest.mark.parametrize(
    ("x", "options", "support"),
    [
        (GREY, [], levels),
        (GREY > 99, ["data.levels=2", "likelihood=bce"], constraints.boolean),
        (GREY, ["data.binarize=dynamic", "likelihood=bce"], constraints.boolean),
        (GREY / 255, ["data.levels=unit", "likelihood=continuous_bernoulli"], constraints.unit_interval),
        (GREY / 7 - 3, ["data.levels=null"], constraints.real),
    ],
)
def test_each_kind_of_pixel_reaches_the_model(x, options, support, tmp_path):
    np.savez(tmp_path / "my.npz", x=x, y=LABELS)
    shared = [f"data.source.path={tmp_path / 'my.npz'}", "data.image_shape=[1,4,6]", "data.num_classes=3"]
    cfg = composed("data=npz", *shared, *options, "data.val_size=3", "data.test_size=3", "data.batch_size=2")
    _, data = build(cfg)
    prepare(data)
    assert data.representation.support is support
    assert sum(len(images) for images, _ in data.training_images()) == 6


def test_sizes_are_needed_where_the_file_has_no_splits(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY)
    cfg = composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", "data.image_shape=[1,4,6]")
    with pytest.raises(ValueError, match=r"data\.test_size=None: the set has no test split"):
        make(cfg, "data").setup("fit")


def test_an_array_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_exp.data.npz.memory", lambda: 10_000)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"x\.npz unzips to 6,528 bytes; half the memory of this machine, 5,000, is"):
        NPZ(str(tmp_path / "x.npz"), [1, 8, 8]).load(tmp_path)
