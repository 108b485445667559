"""The source `npz`: arrays of a user's own."""

import re

import numpy as np
import pytest
import torch
from helpers.runs import composed
from torch.distributions import constraints

from vae_exp.arrays import levels_of
from vae_exp.config import ConfigError
from vae_exp.data import NPZ, Representation
from vae_exp.data.scale import fitted
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
        ({"pictures": GREY}, "holds pictures: either x is needed, or x_train"),
        ({}, "holds nothing: either x is needed"),
        ({"x_test": GREY}, "holds x_test: either x is needed, or x_train"),
        ({"x": GREY, "x_test": GREY}, "holds x, x_test: either x is needed, or x_train (with"),
        ({"x": COLOUR}, "x is of shape (12, 3, 4, 6), but data.image_shape=[1, 4, 6] needs (N, 1, 4, 6)"),
        ({"x": GREY.reshape(12, -1)}, "x is of shape (12, 24)"),
        ({"x": GREY[:0]}, "x is of shape (0, 1, 4, 6)"),
        ({"x": np.uint8(3)}, "x is of shape ()"),
        ({"x": GREY.astype(complex)}, "x is complex128: a whole number"),
        ({"x": GREY // 128}, "the bytes of x are 0 and 1, but white is 255: set data.levels=2"),
        ({"x": GREY, "y": LABELS[:5]}, "y has 5 labels, but x has 12 images"),
        ({"x": GREY, "y": LABELS / 2}, "y is float64 (12,), whole numbers or words (N,) are needed"),
        ({"x": GREY, "y": np.eye(4)[LABELS] / 2}, "y=y.argmax(axis=1) takes the largest of each row"),
        ({"x": GREY.reshape(12, 2, 2, 2, 3)}, "it holds volumes: the images here have two dimensions"),
        ({"x": GREY.reshape(12, -1)}, "rows of numbers are images of one row: data.image_shape=[1,1,24]"),
        ({"x": GREY[:, 0, :2]}, "\n  data.image_shape=[1,2,6]"),
        ({"x": COLOUR.transpose(0, 2, 3, 1)}, "\n  data.image_shape=[3,4,6]"),
        ({"x_train": GREY, "x_val": GREY, "y_val": LABELS[:, None] / 2}, "y_val is float64 (12,)"),
    ],
)
def test_what_is_not_accepted_is_named(arrays, named, tmp_path):
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        load(tmp_path, **arrays)
    assert str(tmp_path / "my.npz") in str(error.value)


def test_no_pickle_is_read(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(tmp_path, x=np.array([print], dtype=object))


def test_a_damaged_array_is_named(tmp_path):
    np.savez_compressed(tmp_path / "my.npz", x=GREY)
    content = bytearray((tmp_path / "my.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "my.npz").write_bytes(content)
    cfg = composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", "data.image_shape=[1,4,6]")
    assert cfg.data.levels == 256
    with pytest.raises(ValueError, match=r"my\.npz: x is no plain array \("):
        NPZ(str(tmp_path / "my.npz"), (1, 4, 6)).load(tmp_path)


def test_other_arrays_are_left_alone_and_named(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY, y=LABELS, metadata=np.array({"made": 2020}, dtype=object), z=np.zeros(3))
    source = NPZ(str(tmp_path / "my.npz"), (1, 4, 6))
    assert source.load(tmp_path)["train"].y.tolist() == LABELS.tolist()
    assert source.notes == ("left alone in the file: metadata, z",)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (LABELS[:, None], LABELS),
        (np.eye(3)[LABELS], LABELS),
        (np.eye(3, dtype=bool)[LABELS], LABELS),
        (LABELS.astype(float), LABELS),
        (LABELS > 1, LABELS > 1),
        (np.array(["dog", "cat", "ant"])[LABELS], 2 - LABELS),
        (np.array(["10", "9", "2"])[LABELS], 2 - LABELS),  # by size: 2, 9, 10
        (np.array([b"dog", b"cat", b"ant"])[LABELS], 2 - LABELS),
    ],
    ids=["a column", "one-hot", "one-hot bools", "floats", "bools", "words", "numbers in words", "bytes"],
)
def test_labels_in_other_forms(y, expected, tmp_path):
    assert load(tmp_path, x=GREY, y=y)["train"].y.tolist() == expected.astype(int).tolist()


def test_words_have_one_number_in_all_splits(tmp_path):
    np.savez(tmp_path / "my.npz", x_train=GREY[:2], y_train=["b", "c"], x_test=GREY[:2], y_test=["c", "a"])
    source = NPZ(str(tmp_path / "my.npz"), (1, 4, 6))
    assert {name: split.y.tolist() for name, split in source.load(tmp_path).items()} == {
        "train": [1, 2],
        "test": [2, 0],
    }
    assert source.notes == ("labels: 0 is a, 1 is b, 2 is c",)


def test_labels_from_1_are_told_the_line_that_mends_them(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY, y=LABELS + 1)
    shared = ["data.image_shape=[1,4,6]", "data.num_classes=3", "data.val_size=3", "data.test_size=3"]
    _, data = build(composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", *shared))
    with pytest.raises(ConfigError, match=r"the labels are 1 to 3\n  save them as numpy\.savez\(\.\.\., y=y - 1\)"):
        prepare(data)


def test_the_names_of_medmnist(tmp_path):
    x = COLOUR.transpose(0, 2, 3, 1)
    arrays = {f"{split}_images": x[:n] for split, n in (("train", 12), ("val", 3), ("test", 2))}
    arrays |= {f"{split}_labels": LABELS[:n, None] for split, n in (("train", 12), ("val", 3), ("test", 2))}
    splits = load(tmp_path, (3, 4, 6), **arrays)
    assert {name: split.y.tolist() for name, split in splits.items()} == {
        "train": LABELS.tolist(), "val": [0, 1, 2], "test": [0, 1],
    }  # fmt: skip
    np.testing.assert_array_equal(splits["val"].x, COLOUR[:3])
    assert set(load(tmp_path, X_train=GREY, X_test=GREY)) == {"train", "test"}


@pytest.mark.parametrize(
    ("x", "levels"),
    [
        (GREY, 256),
        (GREY > 99, 2),
        (GREY // 128, 2),
        ((GREY // 128).astype(np.float32), 2),
        ((GREY // 128).astype(int), 2),
        ((GREY / 255).astype(np.float32), "unit"),
        ((GREY / 255).astype(">f8"), "unit"),
        (GREY.astype(float), None),
        (GREY.astype(int), 256),
        (GREY / 255 - 0.5, None),
    ],
)
@pytest.mark.parametrize("save", [np.savez_compressed, np.save])
def test_the_levels_of_an_array_are_found(x, levels, save, tmp_path, monkeypatch):
    path = tmp_path / ("my.npy" if save is np.save else "my.npz")
    save(path, **({"arr": x} if save is np.save else {"x": x, "other": np.zeros(3) + 7}))
    monkeypatch.setattr("vae_exp.arrays.FAR", 64)  # read in several parts
    assert levels_of(path) == levels
    cfg = composed("data=npz", f"data.source.path={path}", "data.image_shape=[1,4,6]", "data.num_classes=null")
    assert cfg.data.levels == cfg.data.source.levels == levels
    split = make(cfg, "data").source.load(tmp_path)["train"]
    split.check("train", Representation(levels))
    if levels == 256:
        np.testing.assert_array_equal(split.x, GREY)
    if levels == 2:
        np.testing.assert_array_equal(split.x, x.astype(np.uint8) * 255)


def test_volumes_are_refused_by_this_name():
    with pytest.raises(ValueError, match=r"data\.image_shape=\[1, 4, 4, 4\], a volume: .*\[channels, height, width\]"):
        NPZ("x.npz", [1, 4, 4, 4])
    with pytest.raises(ValueError, match=r"data\.image_shape=\[8, 8\]; \[channels, height, width\]"):
        NPZ("x.npz", [8, 8])


@pytest.mark.parametrize("scaling", ["standardize", "range"])
def test_a_scale_is_fitted_to_the_training_rows_alone_and_kept(scaling, tmp_path):
    x = RNG.normal(120, 70, size=(12, 1, 4, 6))
    x[:2] += 1000  # whatever split they are in, the others do not know of them
    np.savez(tmp_path / "my.npz", x_train=x[2:], x_val=x[:1], x_test=x[1:2])
    shared = ["data=npz", f"data.source.path={tmp_path / 'my.npz'}", "data.image_shape=[1,4,6]", "data.batch_size=2"]
    _, data = build(composed(*shared, f"data.scale={scaling}"))
    prepare(data)
    data.setup("test")
    ours = x[2:].astype(np.float32).astype(float)
    shift, factor = (ours.mean(), ours.std()) if scaling == "standardize" else (ours.min(), np.ptp(ours))
    assert data.scale == pytest.approx((shift, factor), rel=1e-6)
    np.testing.assert_allclose(data.splits["train"].x, (x[2:] - shift) / factor, atol=1e-4)
    np.testing.assert_allclose(data.splits["test"].x * data.scale.factor + data.scale.shift, x[1:2], rtol=1e-4)
    np.testing.assert_allclose(data.represent(torch.tensor(x[:1], dtype=torch.float32)), data.splits["val"].x)
    assert data.title.startswith("real numbers, (x - ")
    # A run keeps what was fitted: other training rows leave it as it is.
    np.savez(tmp_path / "my.npz", x_train=x, x_val=x[:1], x_test=x[1:2])
    _, again = build(composed(*shared, f"data.scale={scaling}", f"data.scaled=[{shift},{factor}]"))
    prepare(again)
    torch.testing.assert_close(again.splits["val"].x, data.splits["val"].x)


def test_scaled_rows_are_still_known_by_their_place_in_the_file(tmp_path):
    x = RNG.normal(120, 70, size=(12, 1, 4, 6))
    np.savez(tmp_path / "my.npz", x=x)
    words = ["data.image_shape=[1,4,6]", "data.batch_size=2", "data.val_size=3", "data.test_size=3", "data.scale=range"]
    _, data = build(composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", *words))
    prepare(data)
    data.setup("test")
    test = data.splits["test"]
    np.testing.assert_allclose(test.x * data.scale.factor + data.scale.shift, x[test.keys], rtol=1e-4)


def test_a_scale_is_refused_where_it_has_no_sense(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY, z=np.zeros(3))
    with pytest.raises(ConfigError, match=r"data\.scale=range is for real numbers, data\.levels=null"):
        build(composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", "data.scale=range"))
    with pytest.raises(ValueError, match="all numbers of the training images are 3"):
        fitted("standardize", torch.full((4, 1, 2, 2), 3.0))


def test_a_range_far_from_0_to_1_is_named_with_its_remedy(tmp_path):
    shared = ["data=npz", "data.image_shape=[1,4,6]", "data.val_size=2", "data.test_size=2", "data.batch_size=2"]
    for factor, is_named in ((1.0, False), (255.0, True), (1e-4, True)):
        path = tmp_path / f"{factor}.npz"
        np.savez(path, x=factor * (RNG.random((12, 4, 6)) - 0.5))
        _, data = build(composed(*shared, f"data.source.path={path}"))
        prepare(data)
        assert bool(data.remedy) == is_named
        assert not is_named or "data.scale=standardize or data.scale=range" in data.remedy


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_damaged_file_is_named(content, tmp_path):
    (tmp_path / "my.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"my\.npz is corrupt: not an \.npz"):
        NPZ("my.npz", (1, 4, 6)).load(tmp_path)


def test_one_array_alone_is_x(tmp_path):
    np.save(tmp_path / "my.npy", GREY)
    np.testing.assert_array_equal(NPZ("my.npy", (1, 4, 6)).load(tmp_path)["train"].x, GREY)


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
