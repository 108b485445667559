"""What y is: classes, or rows of attributes, and the context c that a conditional model is given for them."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import SMALL, composed
from omegaconf import OmegaConf

from vae_exp import decoders, priors
from vae_exp.conditions import Attributes, Classes, condition_of
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data.given import given
from vae_exp.data.npz import NPZ
from vae_exp.encoders import MLP
from vae_exp.likelihoods import Bernoulli
from vae_exp.models import CVAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.runs.trained import restore
from vae_exp.training.job import train

COLUMNS = [
    {"name": "smiling", "kind": "binary"},
    {"name": "age", "kind": "real"},
    {"name": "shape", "kind": "categorical", "categories": ["disc", "heart", "square"]},
]
Y = torch.tensor([[0.0, 20.0, 2.0], [1.0, 40.0, 0.0], [1.0, 60.0, 0.0]])


def test_classes_are_one_hot():
    assert torch.equal(Classes(4)(torch.tensor([2, 0])), torch.eye(4, dtype=torch.long)[[2, 0]])
    assert not Classes(4).state_dict()


def test_real_attributes_are_standardised_and_categories_one_hot():
    c = Attributes(COLUMNS).fit(Y)(Y)
    age = np.sqrt(1.5)  # 20 / the standard deviation of 20, 40 and 60, which is 20 sqrt(2 / 3)
    expected = [[0, -age, 0, 0, 1], [1, 0, 1, 0, 0], [1, age, 1, 0, 0]]
    torch.testing.assert_close(c, torch.tensor(expected, dtype=torch.float32))


def test_what_was_fitted_is_saved_with_the_weights():
    other = Attributes(COLUMNS)
    other.load_state_dict(Attributes(COLUMNS).fit(Y).state_dict())
    torch.testing.assert_close(other(Y), Attributes(COLUMNS).fit(Y)(Y))
    assert other.typical(2).tolist() == [[1, 40, 0]] * 2


def test_labels_by_name_replace_those_of_the_data():
    condition = Attributes(COLUMNS).fit(Y)
    assert condition.told({"age": 30, "shape": "heart"}, Y[:2], 2).tolist() == [[0, 30, 1], [1, 30, 1]]
    assert condition.told({"smiling": 1, "age": 30, "shape": "disc"}, None, 2).tolist() == [[1, 30, 0]] * 2
    assert condition.caption(Y[0]) == "smiling = 0, age = 20, shape = square"
    assert condition.table(Y)["shape"] == ["square", "disc", "disc"]


@pytest.mark.parametrize(
    ("label", "named"),
    [
        (3, "'label={smiling: 1}'"),
        ({"hat": 1}, "label=hat: choose of smiling, age, shape"),
        ({"shape": "cube"}, "shape=cube: one of disc, heart, square is needed"),
        ({"smiling": 2}, "smiling=2: 0 or 1 is needed"),
        ({"age": "old"}, "age=old: a number is needed"),
        ({"age": 30}, "smiling, shape of it are unknown"),
        (None, "smiling, age, shape of it are unknown"),
    ],
)
def test_other_labels_are_refused(label, named):
    with pytest.raises(ConfigError, match=re.escape(named)):
        Attributes(COLUMNS).fit(Y).told(label, None, 1)


def test_groups_of_an_attribute():
    condition = Attributes(COLUMNS).fit(Y)
    assert [condition.grouped(Y, d).tolist() for d in range(3)] == [[0, 1, 1], [0, 0, 1], [2, 0, 0]]
    assert condition.groups(1) == ["age ≤ 40", "age > 40"]
    varied = condition.varied(Y[0], 2)
    assert [name for name, _ in varied] == ["shape = disc", "shape = heart", "shape = square"]
    assert [row.tolist() for _, row in varied] == [[0, 20, k] for k in range(3)]
    assert condition.varied(Y[0], 1, 3)[1][1].tolist() == [0, 40, 2]  # the mean is in the middle


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([float("nan"), 20, 0], "attribute 'smiling' is missing for 1 of 4 images of val"),
        ([0.5, 20, 0], "attribute 'smiling' is binary, but val holds 0.5"),
        ([0, 20, 3], "attribute 'shape' is categorical, but val holds 3"),
    ],
)
def test_entries_that_cannot_be_are_named(wrong, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        Attributes(COLUMNS).check("val", torch.cat([Y, torch.tensor([wrong])]))


def test_y_is_classes_or_attributes():
    assert condition_of(3, None).num_classes == 3
    with pytest.raises(ValueError, match=r"data\.num_classes=3, but y is 3 attributes"):
        condition_of(3, COLUMNS)


def parts(prior, width):
    likelihood = Bernoulli()
    encoder, decoder = MLP([1, 2, 2], width, [4], 4), decoders.MLP(2, [1, 2, 2], width, hidden=[4])
    return encoder, decoder, DiagonalNormal(4, 2), prior, likelihood, ELBO()


@pytest.mark.parametrize(
    "prior", [priors.StandardNormal(2), priors.Mixture(2, 3, context_dim=5)], ids=["normal", "mixture"]
)
def test_a_cvae_is_given_attributes(prior):
    condition = Attributes(COLUMNS).fit(Y)
    model = CVAE(*parts(prior, 5), context_dim=5, condition=condition)
    torch.testing.assert_close(model.context(Y), condition(Y))
    assert model.bounds == "log p(x|smiling, age, shape)"
    assert model.draw(torch.rand(3, 1, 2, 2).round(), Y, 2).elbo.shape == (3,)
    assert model.sample(3, Y).shape == (3, 1, 2, 2)
    assert {key for key in model.state_dict() if key.startswith("condition")} == {
        f"condition.{name}" for name in ("shift", "factor", "middle")
    }
    with pytest.raises(ValueError, match=r"CVAE needs labels y, \(B, 3\), one number each for smiling, age, shape"):
        model.context(torch.zeros(3))


def test_a_prior_with_parts_for_each_class_is_refused():
    with pytest.raises(ValueError, match="prior: Vamp has parts for each class, and y is no class, but attributes"):
        CVAE(*parts(priors.Vamp([1, 2, 2], 5), 5), context_dim=5, condition=Attributes(COLUMNS))


X = np.random.default_rng(0).integers(256, size=(12, 1, 4, 6), dtype=np.uint8)
TWO = np.stack([np.arange(12) % 2, np.linspace(0, 30, 12)], axis=1)


def config_of(path, *words):
    return composed("data=npz", f"data.source.path={path}", "data.image_shape=[1,4,6]", *words)


def test_the_columns_of_y_are_found_in_the_file(tmp_path):
    np.savez(tmp_path / "my.npz", x=X, y=TWO, attributes=["smiling", "age"])
    cfg = config_of(tmp_path / "my.npz", "model=cvae")
    assert [(each.name, each.kind) for each in cfg.data.attributes] == [("smiling", "binary"), ("age", "real")]
    assert cfg.model.context_dim == cfg.encoder.context_dim == 2
    np.savez(tmp_path / "other.npz", x_train=X, y_train=TWO[:, 1:], x_test=X, y_test=TWO[:, 1:])
    assert [each.name for each in config_of(tmp_path / "other.npz").data.attributes] == ["y0"]


@pytest.mark.parametrize("y", [np.arange(12) % 3, np.arange(12)[:, None] % 3, np.eye(3)[np.arange(12) % 3]])
def test_labels_are_no_attributes(tmp_path, y):
    np.savez(tmp_path / "my.npz", x=X, y=y)
    assert config_of(tmp_path / "my.npz").data.attributes is None
    assert given((X, y), tmp_path).settings["data.num_classes"] == 3


def test_rows_of_an_array_are_read(tmp_path):
    np.savez(tmp_path / "my.npz", x=X, y=TWO.astype(str))
    attributes = OmegaConf.to_container(config_of(tmp_path / "my.npz").data.attributes)
    assert [each["kind"] for each in attributes] == ["binary", "real"]
    y = NPZ(str(tmp_path / "my.npz"), (1, 4, 6), 256, attributes).load(tmp_path)["train"].y
    torch.testing.assert_close(y, torch.from_numpy(TWO).float())


def test_frames_are_given_from_python(tmp_path):
    frame = pd.DataFrame({"smiling": TWO[:, 0], "mood": ["bad", "good"] * 6})
    own = given((X, frame), tmp_path)
    assert own.settings["data.attributes"] == [
        {"name": "smiling", "kind": "binary"},
        {"name": "mood", "kind": "categorical", "categories": ["bad", "good"]},
    ]
    own.write()
    y = NPZ(str(own.path), (1, 4, 6), 256, own.settings["data.attributes"]).load(tmp_path)["train"].y
    assert y.tolist() == [[k % 2, k % 2] for k in range(12)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A CVAE of images that are as bright as one attribute says, with their lower half black by another."""
    folder = tmp_path_factory.mktemp("attributes")
    rng = np.random.default_rng(0)
    y = np.stack([np.arange(200) % 2, rng.uniform(0, 100, 200)], axis=1)
    x = np.broadcast_to((y[:, 1] / 100)[:, None, None], (200, 8, 8)).copy()
    x[y[:, 0] == 1, 4:] = 0
    np.savez(folder / "my.npz", x=x.astype(np.float32), y=y, attributes=["dark", "light"])
    small = [word for word in SMALL if not word.startswith("data")]
    words = [f"data.source.path={folder / 'my.npz'}", "data.image_shape=[1,8,8]", "data.val_size=20"]
    cfg = composed("data=npz", *small, *words, "data.test_size=20", "data.batch_size=20", "model=cvae", "latent_dim=2",
                   "trainer.max_epochs=10", "optimizer.lr=0.01")  # fmt: skip
    train(cfg, folder / "run")
    return folder / "run"


def test_a_run_is_conditioned_on_attributes_in_their_own_units(run):
    trained = restore(run, accelerator="cpu", progress=False)
    trained.setup("train")
    y = trained.data.splits["train"].y
    torch.testing.assert_close(trained.model.condition.shift[1], y[:, 1].mean())
    torch.testing.assert_close(trained.model.condition.factor[1], y[:, 1].std(correction=0))
    asked = torch.tensor([[0.0, 20.0], [0.0, 80.0], [1.0, 80.0]]).repeat_interleave(20, dim=0)
    torch.manual_seed(0)
    images = trained.model.sample(60, asked).view(3, 20, 8, 8).mean(dim=1)
    bright = images.mean(dim=(1, 2))
    assert bright[0] + 0.1 < bright[1] > bright[2]


def test_no_class_no_sum_over_classes(run):
    trained = restore(run, accelerator="cpu", progress=False)
    from vae_exp.metrics.clusters import clusters

    with pytest.raises(NoMeaningError, match="y is no class, but attributes: dark, light"):
        clusters(trained, None)
