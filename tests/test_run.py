"""The commands from Python: the same configs, run folders and refusals."""

import logging

import numpy as np
import pytest
import torch
from helpers.runs import composed
from omegaconf import OmegaConf
from torch.utils.data import Dataset, TensorDataset

import vae_exp
from vae_exp.calls import words_of
from vae_exp.config import ConfigError
from vae_exp.data.given import given

SMALL = {
    "latent_dim": 2,
    "encoder": {"hidden": [8], "out_features": 8},
    "decoder.hidden": [8],
    "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
    "data.batch_size": 16,
    "logger": "csv",
    "report": False,
    "callbacks": {"pictures": None, "curves": None},
}
RNG = np.random.default_rng(0)
X = RNG.random((100, 8, 8))
Y = np.where(np.arange(100) % 2, "dog", "cat")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("python"))
        yield vae_exp.train((X, Y), model="cvae", **SMALL)


def test_words_are_those_of_the_command_line():
    settings = {"optimizer": {"lr": 1e-3}, "encoder.hidden": [8, 4], "seed": np.int64(3), "report": False}
    assert words_of(settings) == ["optimizer.lr=0.001", "encoder.hidden=[8,4]", "seed=3", "report=false"]
    assert words_of({"name": "12", "resume": "a b", "experiment": None, "~sweep": None}) == [
        "name='12'",
        "resume='a b'",
        "experiment=null",
        "~sweep",
    ]
    with pytest.raises(ConfigError, match="seed: a object is no value"):
        words_of({"seed": object()})


def test_compose_gives_the_config_of_the_command_line():
    cfg = vae_exp.compose("digits", "cvae", latent_dim=10, logger="csv", **{"optimizer.lr": 0.01})
    words = ("data=digits", "model=cvae", "latent_dim=10", "logger=csv", "optimizer.lr=0.01")
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(composed(*words))


def test_a_run_on_arrays_is_read_back_from_its_folder(run):
    trained = run.restore(split="train", accelerator="cpu", progress=False)
    x, y = trained.images(80)
    own = {image.tobytes(): label for image, label in zip(X.astype(np.float32), Y, strict=True)}
    assert [own[image.numpy().tobytes()] for image in x[:, 0]] == ["cat" if label == 0 else "dog" for label in y]
    assert trained.num_images("val") == trained.num_images("test") == 10
    assert run.cfg.data.levels == "unit"
    assert run.record["overrides"][0] == "data=npz"
    assert "kept in" in (run.folder / "train.log").read_text()


@pytest.mark.slow
def test_the_commands(run):
    made = run.generate("samples", num_images=4, accelerator="cpu", progress=False)
    assert made._repr_png_() == (run.folder / "images" / "samples" / "samples.png").read_bytes()
    assert "data:image/png;base64" in made._repr_html_()
    numbers = run.evaluate("elbo", accelerator="cpu", progress=False, split="val")
    assert numbers["kl"] == pytest.approx(run.metrics["val/kl"], rel=1e-5)  # a closed form, whatever the seed
    assert f"{numbers['kl']:.4f}" in numbers._repr_html_()
    assert "test/elbo" in run._repr_html_()
    assert run.model.sample(2, torch.tensor([0, 1])).shape == (2, 1, 8, 8)
    goes_on = run.resume(**{"trainer.max_epochs": 2})
    assert goes_on.folder == run.folder.resolve()
    assert goes_on.record["epochs"] == 2
    with pytest.raises(ConfigError, match="no such option"):
        run.generate("sample")


@pytest.mark.slow
def test_logging_and_hydra_are_left_as_they_were(run):
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg, logging.getLogger("vae_exp").level, logging.getLogger("vae_exp").handlers[:]
    vae_exp.compose("digits")
    after = HydraConfig.instance().cfg, logging.getLogger("vae_exp").level, logging.getLogger("vae_exp").handlers[:]
    assert before == after


@pytest.mark.slow
def test_what_is_wrong_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong, message in (
        ({"latent_dims": 2}, "did you mean latent_dim"),
        ({"latent_dim": -1}, "latent_dim=-1"),
        ({"decoder": "none"}, "no such option"),
    ):
        with pytest.raises(ConfigError, match=message):
            vae_exp.train(X, **wrong)
    with pytest.raises(ConfigError, match="data=mnits: choose one of"):
        vae_exp.train("mnits")
    assert not list(tmp_path.rglob("*.npz"))
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.slow
def test_a_frame_is_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": RNG.normal(40, 9, 200), "kind": RNG.choice(["a", "b"], 200), "y": Y.repeat(2)})
    small = {key: value for key, value in SMALL.items() if "coder" not in key}
    run = vae_exp.train(frame, model="cvae", **small, **{"data.source.label": "y"})
    read = pandas.read_csv(run.cfg.data.root + "/" + run.cfg.data.source.path)
    pandas.testing.assert_frame_equal(read, frame)
    assert run.cfg.data.num_classes == 2
    numbers = run.evaluate("elbo", accelerator="cpu", progress=False)
    assert np.isfinite(numbers["elbo"])


class Pairs(Dataset):
    def __getitem__(self, i):
        return X[i], str(Y[i])

    def __len__(self):
        return 100


@pytest.mark.parametrize(
    ("data", "shape", "levels", "classes"),
    [
        (X, [1, 8, 8], "unit", None),
        (X * 9, [1, 8, 8], None, None),
        ((X > 0.5).astype(float), [1, 8, 8], 2, None),
        ((X * 255).astype(np.int64)[..., None].repeat(3, -1), [3, 8, 8], 256, None),
        (np.arange(6400).reshape(100, 8, 8), [1, 8, 8], 256, None),  # which says that these are counts
        (torch.rand(100, 3, 8, 8), [3, 8, 8], "unit", None),
        (RNG.normal(size=(100, 30)), [1, 1, 30], None, None),
        (Pairs(), [1, 8, 8], "unit", 2),
        (TensorDataset(torch.rand(100, 1, 8, 8), torch.arange(100) % 10), [1, 8, 8], "unit", 10),
        ({"x_train": X, "x_val": X[:5], "y_train": np.arange(100) % 3 + 1, "y_val": np.ones(5)}, [1, 8, 8], "unit", 3),
    ],
)
def test_data_are_understood(tmp_path, data, shape, levels, classes):
    settings = given(data, tmp_path).settings
    assert (settings["data.image_shape"], settings["data.levels"]) == (shape, levels)
    assert settings["data.num_classes"] == classes
    assert ("data.val_size" in settings) == ("x_val" not in data if isinstance(data, dict) else True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array(["a"]), "numbers are needed"),
        (5, "is a int"),
        (np.zeros(3), "is of shape"),
        (np.full((4, 8, 8), np.nan), "nan or infinite"),
        ((X, Y[:3]), "one label for each image"),
        ((X, X[:, 0, 0]), "are real numbers"),
        ({"z": X}, "the arrays are x and y"),
        (np.zeros((2, 3, 8, 3)), "where are the colours"),
        ({"x_train": X, "y_train": Y, "x_val": X}, "x_val has no labels"),
    ],
)
def test_other_data_are_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        given(data, tmp_path)
