"""The source `dsprites`: the file of its distributor, here a small one of the same kind."""

import pickle
import zipfile
from math import prod

import numpy as np
import pytest
import torch
from helpers.runs import composed

from vae_exp.config import ConfigError
from vae_exp.data import DSprites, Sprites, dsprites
from vae_exp.runs.build import build, prepare

SIZES = (3, 2, 4, 3, 5)
NAME = DSprites.files.names[0]


class Trap:
    """What the pickle of the file must not do."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was read",))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(DSprites, "sizes", SIZES)
    monkeypatch.setattr(dsprites, "ROWS", 50)  # not a divisor of 360


def arrays():
    """Images whose bits spell their place, and the classes as the distributor orders them."""
    rng = np.random.default_rng(0)
    imgs = rng.integers(2, size=(prod(SIZES), 64, 64), dtype=np.uint8)
    classes = np.stack(np.meshgrid([0], *map(range, SIZES), indexing="ij"), axis=-1).reshape(-1, 6)
    return {"imgs": imgs, "latents_classes": classes, "metadata": np.array(Trap(), dtype=object)}


def save(folder, **changed):
    folder.mkdir(exist_ok=True)
    content = arrays() | changed
    np.savez_compressed(folder / NAME, **{name: array for name, array in content.items() if array is not None})
    return content


def source(train_size=200, val_size=30, test_size=40, seed=0):
    return DSprites(train_size, val_size, test_size, seed)


@pytest.mark.parametrize("folder", ["dsprites", "."])
def test_each_image_has_its_own_factors(tmp_path, folder):
    content = save(tmp_path / folder)
    splits = source().load(tmp_path)
    assert {name: tuple(split.x.shape) for name, split in splits.items()} == {
        "train": (200, 1, 64, 64), "val": (30, 1, 64, 64), "test": (40, 1, 64, 64),
    }  # fmt: skip
    place = {tuple(row[1:]): i for i, row in enumerate(content["latents_classes"].tolist())}
    seen = []
    for name, (x, y) in splits.items():
        factors = source().factors(name)
        rows = [place[tuple(f)] for f in factors.tolist()]
        seen += rows
        assert x.dtype == torch.uint8
        assert np.array_equal(x[:, 0].numpy(), content["imgs"][rows] * 255)
        assert torch.equal(y, factors[:, 0])
    assert len(set(seen)) == 270  # none twice
    other = source(seed=1).load(tmp_path)
    assert not torch.equal(other["test"].x, splits["test"].x)
    more = source(train_size=290).load(tmp_path)
    assert torch.equal(more["test"].x, splits["test"].x)
    assert torch.equal(more["train"].x[:200], splits["train"].x)


def test_sizes_and_names_are_those_of_the_file():
    assert len(DSprites.factor_names) == len(SIZES)
    assert DSprites.factor_names == Sprites.factor_names
    with pytest.raises(ValueError, match=r"data\.source\.train_size=291: .* more than the 360 existing images"):
        source(train_size=291)


def change(array, at, value):
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"imgs": None}, "KeyError"),
        ({"latents_classes": None}, "latents_classes"),
        ({"imgs": arrays()["imgs"] * np.uint8(255)}, "not all 0 and 1"),
        ({"imgs": arrays()["imgs"][:-1]}, "imgs is uint8 .359, 64, 64., not uint8 .360, 64, 64."),
        ({"imgs": arrays()["imgs"].astype(np.int64)}, "imgs is int64"),
        ({"imgs": np.asfortranarray(arrays()["imgs"])}, "C order"),
        ({"latents_classes": arrays()["latents_classes"][::-1]}, "not all combinations in order"),
        ({"latents_classes": change(arrays()["latents_classes"], (7, 5), 0)}, "not all combinations in order"),
        ({"latents_classes": np.array([Trap()])}, "allow_pickle=False"),
    ],
)
def test_another_content_is_refused(tmp_path, changed, why):
    save(tmp_path / "dsprites", **changed)
    with pytest.raises(ValueError, match=rf"(?s){NAME} is corrupt: .*{why}"):
        source().load(tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    save(tmp_path)
    whole = (tmp_path / NAME).read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", pickle.dumps(Trap()), b""):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(ValueError, match=r"is corrupt: not the \.npz file of dSprites"):
            source().load(tmp_path)
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:  # more pixels, fewer pixels than the header says
        np.save(tmp_path / "classes.npy", arrays()["latents_classes"])
        np.save(tmp_path / "imgs.npy", arrays()["imgs"])
        archive.write(tmp_path / "classes.npy", "latents_classes.npy")
        archive.writestr("imgs.npy", (tmp_path / "imgs.npy").read_bytes() + b"\0")
    with pytest.raises(ValueError, match="more bytes than pixels"):
        source().load(tmp_path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    (tmp_path / NAME).write_bytes(damaged)
    with pytest.raises(ValueError, match="is corrupt"):
        source().load(tmp_path)


def test_a_missing_file_is_asked_for(tmp_path):
    sizes = ["data.train_size=200", "data.source.val_size=30", "data.source.test_size=40"]
    cfg = composed("data=dsprites", f"data.root={tmp_path}", *sizes)
    _, data = build(cfg)
    with pytest.raises(
        ConfigError, match=rf"(?s)no {NAME}.*belongs in {tmp_path}/dsprites.*github.com/google-deepmind"
    ):
        prepare(data)
    save(tmp_path / "dsprites")
    data.setup("fit")
    data.setup("test")
    assert [len(data.splits[name].x) for name in ("train", "val", "test")] == [200, 30, 40]
    assert data.representation.is_bits
    assert torch.equal(data.splits["test"].y, data.source.factors("test")[:, 0])
