"""Rows of attributes from folders, CelebA's list, tables and factors: the right values in the right rows."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import composed
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from PIL import Image

import vae_exp
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data import NPZ, DSprites, Images, Sprites, celeba
from vae_exp.data.celeba import ATTRIBUTES
from vae_exp.metrics.factors import _known, _levels
from vae_exp.runs.build import build, prepare


def pictures(folder, names):
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(path)


NAMES = [f"train/{k}.png" for k in range(8)] + ["test/0.png", "test/1.png"]


@pytest.fixture
def folder(tmp_path):
    """Pictures whose grey level is 20 times their number, which is also an attribute; rows in another order."""
    pictures(tmp_path / "faces", NAMES)
    rows = [(name, k % 2, k / 2, "ab"[k % 2]) for k, name in enumerate(NAMES)]
    frame = pd.DataFrame(rows[::-1], columns=["file", "smiling", "age", "mood"])
    frame.to_csv(tmp_path / "faces" / "attributes.csv", index=False)
    return tmp_path / "faces"


def data_of(folder, *words):
    own = [f"data.source.path={folder}", "data.image_shape=[1,8,8]", "data.val_size=2", "data.batch_size=2"]
    cfg = composed("data=image_folder", *own, *words)
    _, data = build(cfg)
    prepare(data)
    data.setup("test")
    return cfg, data


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_each_picture_has_its_row(folder, in_memory):
    cfg, data = data_of(folder, "model=cvae", f"data.source.in_memory={in_memory}", "data.source.workers=0")
    assert [each.kind for each in cfg.data.attributes] == ["binary", "real", "categorical"]
    assert cfg.model.context_dim == 1 + 1 + 2
    for split in ("train", "val", "test"):
        for x, y in data.batches(split):
            number = (x[:, 0, 0, 0] * 255 / 20).round()
            torch.testing.assert_close(y, torch.stack([number % 2, number / 2, number % 2], dim=1))
    assert "attributes.csv: smiling, age, mood" in str(data.contents)
    assert not data.contents.left_out


def test_some_attributes_are_chosen(folder):
    _, data = data_of(folder, "data.source.label=[age]")
    assert data.splits["train"].y.shape == (6, 1)
    assert data.condition.names == ("age",)


@pytest.mark.parametrize("form", [lambda name: name.split("/")[1], lambda name: name, lambda name: f"./{name}"[2:]])
def test_names_may_leave_folders_out(tmp_path, form):
    names = [f"train/{k}.png" for k in range(8)]
    pictures(tmp_path, [*names, "test/8.png"])
    rows = [(form(name), k) for k, name in enumerate([*names, "test/8.png"])]
    pd.DataFrame(rows, columns=["file", "age"]).to_csv(tmp_path / "attributes.csv", index=False)
    _, data = data_of(tmp_path)
    assert data.splits["test"].y.tolist() == [[8]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda frame: frame.iloc[1:], "has no row for test/1.png (1 of 2 pictures)"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "has two rows of test/1.png"),
        (
            lambda frame: frame.assign(age=frame.age.where(frame.age > 0)),
            "attribute 'age' is missing for 1 of 8 images",
        ),
    ],
)
def test_wrong_rows_are_named(folder, change, named):
    path = folder / "attributes.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ConfigError, match=re.escape(named)):
        data_of(folder)


def test_a_column_that_is_not_there_is_named(folder):
    with pytest.raises(InterpolationResolutionError, match="no attribute 'hat'; there are smiling, age, mood"):
        composed("data=image_folder", f"data.source.path={folder}", "data.source.label=[hat]")
    (folder / "attributes.csv").unlink()
    with pytest.raises(ConfigError, match=r"data\.source\.label=\['hat'\]: there is no attributes\.csv in"):
        data_of(folder, "data.source.label=[hat]")


def test_folders_are_classes_beside_attributes(tmp_path):
    pictures(tmp_path, [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(6)])
    pd.DataFrame({"file": ["a"], "age": [1]}).to_csv(tmp_path / "attributes.csv", index=False)
    _, data = data_of(tmp_path, "data.num_classes=2", "data.test_size=2")
    assert data.splits["train"].y.dim() == 1


def test_celebas_list(tmp_path, monkeypatch):
    monkeypatch.setattr(celeba, "ROWS", {"train": 3, "val": 1, "test": 1})
    (tmp_path / celeba.FOLDER).mkdir()
    values = np.random.default_rng(0).choice([-1, 1], size=(5, 40))
    names = [f"{i:06}.jpg" for i in range(5)]
    for name in names:
        Image.fromarray(np.zeros((218, 178, 3), np.uint8)).save(tmp_path / celeba.FOLDER / name)
    (tmp_path / "list_eval_partition.txt").write_text(
        "".join(f"{n} {k}\n" for n, k in zip(names, [0, 2, 0, 1, 0], strict=True))
    )
    lines = [f"{name} {' '.join(map(str, row))}" for name, row in zip(names, values, strict=True)]
    (tmp_path / celeba.LIST).write_text("\n".join(["5", " ".join(ATTRIBUTES), *lines]) + "\n")
    cfg = composed("data=celeba", "data.source.label=[Smiling,Male]", "data.image_shape=[3,8,8]", "model=cvae")
    assert cfg.model.context_dim == 2
    assert len(composed("data=celeba", "data.source.label=all").data.attributes) == 40
    source = celeba.CelebA([3, 8, 8], ["Smiling", "Male"], OmegaConf.to_container(cfg.data.attributes))
    splits = source.load(tmp_path)
    chosen = values[:, [ATTRIBUTES.index("Smiling"), ATTRIBUTES.index("Male")]] == 1
    assert splits["train"].y.tolist() == chosen[[0, 2, 4]].tolist()
    assert splits["test"].y.tolist() == chosen[[1]].tolist()
    with pytest.raises(ValueError, match=r"data\.source\.label=Hat: choose all, or of 5_o_Clock_Shadow"):
        celeba.CelebA([3, 8, 8], "Hat", [{"name": "Hat", "kind": "binary"}])
    (tmp_path / celeba.LIST).unlink()
    with pytest.raises(FileNotFoundError, match=r"list_attr_celeba\.txt is missing"):
        source.load(tmp_path)


def test_factors_of_sprites_are_attributes():
    cfg = composed("data=sprites", "data.source.label=[shape,scale]", "model=cvae")
    assert (cfg.data.num_classes, cfg.model.context_dim) == (None, 4)
    asked = vae_exp.compose("sprites", **{"data.source.label": ["shape", "scale"]})
    assert [each.name for each in asked.data.attributes] == ["shape", "scale"]
    source = Sprites(30, 5, 5, 0, ["shape", "scale"])
    split = source.load(None)["train"]
    factors = source.factors("train")
    torch.testing.assert_close(split.y, torch.stack([factors[:, 0], 0.5 + 0.1 * factors[:, 1]], dim=1))
    assert composed("data=sprites", "model=cvae").model.context_dim == 3
    with pytest.raises(ValueError, match=r"label=scale: shape is needed, or a list of factors, of shape, scale"):
        DSprites(30, 5, 5, 0, "scale")


def test_columns_of_a_table_are_attributes(tmp_path):
    frame = pd.DataFrame({"a": np.arange(20) / 2, "b": np.arange(20) % 2, "c": ["x", "y"] * 10, "d": np.arange(20.0)})
    frame.to_csv(tmp_path / "my.csv", index=False)
    cfg = composed("data=table", f"data.source.path={tmp_path / 'my.csv'}", "data.source.label=[c,d]", "model=cvae",
                   "data.batch_size=4")  # fmt: skip
    assert (cfg.data.num_classes, cfg.model.context_dim) == (None, 3)
    _, data = build(cfg)
    prepare(data)
    x, y = data.splits["train"].x.flatten(1), data.splits["train"].y
    assert x.shape[1] == 2
    torch.testing.assert_close(y, torch.stack([x[:, 1], 2 * x[:, 0]], dim=1))


class Run:
    """What the metric reads of a run."""

    split = "test"

    def __init__(self, data):
        self.data = data

    def setup(self, split):
        pass


X = np.arange(40, dtype=np.uint8).repeat(4).reshape(40, 1, 2, 2)
FACTORS = np.stack([np.arange(40) % 3, np.arange(40) // 10], axis=1)


@pytest.mark.parametrize("own_test", [True, False])
def test_factors_of_an_array_follow_their_images(tmp_path, own_test):
    arrays = {"x": X, "factors": FACTORS}
    if own_test:
        arrays = {"x_train": X, "factors_train": FACTORS, "x_test": X[::-1], "factors_test": FACTORS[::-1]}
    np.savez(tmp_path / "my.npz", **arrays, factor_names=["shape", "size"])
    source = NPZ(str(tmp_path / "my.npz"), (1, 2, 2), 256)
    data = Images(source, ".", [1, 2, 2], None, val_size=5, test_size=None if own_test else 7, batch_size=4)
    data.setup("test")
    values, names, unordered = _known(Run(data))
    number = data.splits["test"].x[:, 0, 0, 0].long()
    assert torch.equal(values.long(), torch.from_numpy(FACTORS)[number])
    assert (names, unordered) == (("shape", "size"), ())
    assert "factors" not in str(data.contents)


def test_attributes_are_factors(tmp_path):
    np.savez(tmp_path / "my.npz", x=X, y=FACTORS / 2)
    cfg = composed("data=npz", f"data.source.path={tmp_path / 'my.npz'}", "data.image_shape=[1,2,2]",
                   "data.val_size=5", "data.test_size=5", "data.batch_size=5")  # fmt: skip
    _, data = build(cfg)
    data.setup("test")
    values, names, _ = _known(Run(data))
    assert torch.equal(values, data.splits["test"].y)
    assert list(names) == ["y0", "y1"]


def test_data_without_factors_are_refused(tmp_path):
    np.savez(tmp_path / "my.npz", x=X)
    data = Images(NPZ(str(tmp_path / "my.npz"), (1, 2, 2), 256), ".", [1, 2, 2], None, None, val_size=5, test_size=5)
    data.batch_size = 5
    data.setup("test")
    with pytest.raises(NoMeaningError, match=r"`factors` in a file of arrays, attributes\.csv in a folder"):
        _known(Run(data))


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (np.array([3, 1, 3]), [3, 1, 3]),
        (np.array([0.5, 0.1, 0.5]), [1, 0, 1]),
        (np.linspace(0, 1, 1000), np.repeat(np.arange(10), 100)),
    ],
)
def test_levels_of_a_factor(column, levels):
    assert _levels(column).tolist() == list(levels)
