"""A run read back from its folder: its images, a user's own pictures, noise that follows the seed."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.in_memory import made
from helpers.runs import SMALL, composed, generated
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats

import vae_exp
from vae_exp.config import ConfigError
from vae_exp.data import Split
from vae_exp.runs.build import build
from vae_exp.runs.trained import restore
from vae_exp.training.job import train


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return str(path)


def test_load_gives_the_weights_that_validated_best(run):
    folder, _ = run()
    model = vae_exp.load(folder)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())
    assert not model.training
    with pytest.raises(ConfigError, match="nowhere is not a run folder"):
        vae_exp.load("nowhere")


def test_the_images_are_those_that_training_tested_on(run):
    folder, _ = run("data.binarize=dynamic", "likelihood=bce", "data.eval_batch_size=10")
    trained = restore(folder, accelerator="cpu")
    _, data = build(OmegaConf.load(folder / "config.yaml"))
    data.setup("test")
    x, y = trained.images(25)
    rows = trained.chosen(25)
    assert torch.equal(x, data.splits["test"].x[rows] / 255)
    assert torch.equal(y, data.splits["test"].y[rows])
    assert [len(x) for x, _ in trained.batches(num_images=25)] == [10, 10, 5]
    assert trained.num_images() == 64
    assert trained.num_images("train") == 48
    assert trained.data.checksums["test"] == json.loads((folder / "run.json").read_text())["data"]["test"]


def numbered(folder, seed=0):
    """A run whose test images are their own numbers, 0 to 199; the first half is class 0."""
    x = torch.arange(200.0).view(200, 1, 1, 1)
    split = Split(x, (x.flatten() >= 100).long())
    return replace(made(None, {"train": split, "val": split, "test": split}, folder, 2), seed=seed)


def test_n_images_are_a_sample_of_the_split_the_same_for_everything_with_this_seed(tmp_path):
    trained = numbered(tmp_path)
    every, rows = trained.images(200)[0].flatten(), trained.chosen(50)
    assert torch.equal(every, torch.arange(200.0))
    assert rows.tolist() == sorted(set(rows.tolist()))
    x, y = trained.images(50)
    assert torch.equal(x.flatten(), every[rows])  # each with its own label
    assert torch.equal(y, (x.flatten() >= 100).long())
    assert torch.equal(x, torch.cat([x for x, _ in trained.batches("test", 50)]))
    assert torch.equal(x, torch.cat([x for x, _ in trained.subset("test", 50).data.batches("test")]))
    assert torch.equal(rows, numbered(tmp_path).chosen(50))
    assert torch.isin(rows, trained.chosen(51)).all()  # fewer are among more
    assert trained.num_images() == 200
    assert trained.subset("test", None) is trained is trained.subset("test", 201)
    assert len(trained.subset("test", 50).images(200, "val")[0]) == 200  # other splits are whole


@pytest.mark.slow
def test_every_image_is_as_likely_to_be_drawn(tmp_path):
    counts = torch.zeros(200)
    for seed in range(1000):
        counts[numbered(tmp_path, seed).chosen(50)] += 1
    # 1000 draws, each with probability 1/4: the sum of squares of 200 standardised counts, which add up to 50,000.
    assert stats.chi2(199).cdf(float(((counts - 250) ** 2 / (250 * 0.75)).sum()) * 199 / 200) < 0.999
    assert counts.min() > 250 - 5 * (250 * 0.75) ** 0.5


def test_all_labels_are_there_again_and_the_run_keeps_its_few(run):
    trained = restore(run("model=m2", "data.labelled=8")[0], accelerator="cpu", progress=False)
    _, few = trained.images(10**6, "train")
    x, y = trained.with_all_labels().images(10**6, "train")
    assert (few >= 0).sum() == 8
    assert (y >= 0).all()
    assert torch.equal(few[few >= 0], y[few >= 0])
    assert torch.equal(x, trained.images(10**6, "train")[0])
    assert trained.with_all_labels().with_all_labels().data.labelled is None


def test_noise_follows_the_seed_and_the_place_of_the_batch(run):
    folder, _ = run("data.eval_batch_size=16")
    first, again, other = (
        [torch.rand(()).item() for _ in restore(folder, accelerator="cpu", seed=seed).batches()] for seed in (0, 0, 1)
    )
    assert first == again
    assert len({*first, *other}) == 8


def test_other_images_than_those_of_the_run_are_told(run, caplog):
    folder, _ = run()
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.data.source.seed = 5
    OmegaConf.save(cfg, folder / "config.yaml")
    restore(folder, accelerator="cpu").setup("test")
    assert "the test images are not those of the run" in caplog.text


def test_a_users_picture_is_read_as_the_runs_images_are(run, tmp_path):
    grey = np.arange(64).reshape(8, 8) * 4
    trained = restore(run()[0], accelerator="cpu")
    x = trained.read([save(tmp_path / "a.png", grey), save(tmp_path / "b.png", grey.T)])
    assert torch.equal(x, torch.tensor(np.stack([grey, grey.T])[:, None] / 255, dtype=torch.float32))
    bits = restore(run("data.binarize=threshold", "likelihood=bce", folder="bits")[0], accelerator="cpu")
    assert torch.equal(bits.read(str(tmp_path / "a.png"))[0, 0], torch.tensor(grey > 127).float())


def test_arrays_of_the_user_are_read_as_those_of_the_set(run, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", x=rng.normal(3, 2, (60, 8, 8)))
    options = ("data=npz", f"data.source.path={tmp_path}/set.npz", "data.image_shape=[1,8,8]", "data.scale=standardize")
    small = [word for word in SMALL if not word.startswith(("data=", "data.source", "data.image", "likelihood"))]
    train(composed(*options, "data.levels=null", "data.test_size=6", *small), tmp_path / "run")
    trained = restore(tmp_path / "run", accelerator="cpu", progress=False)
    x, _ = trained.images(6)
    with np.load(tmp_path / "set.npz") as arrays:
        np.save(tmp_path / "new.npy", arrays["x"][trained.keys()])
    ((names, given, y),) = trained.inputs(str(tmp_path / "new.npy"))
    assert torch.allclose(given, x)
    assert names == [f"{tmp_path}/new.npy[{i}]" for i in range(6)]
    assert y is None


def test_files_of_a_folder_are_prepared_and_named_as_in_training(run, tmp_path, caplog):
    """Of another size, with transparency, in sub-folders: the pixels and the names are those of the split."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for i in range(40):
        save(folder / f"{'ab'[i % 2]}/im{i}.png", rng.integers(0, 256, (10, 12, 4)))
    own = (
        "data=image_folder",
        f"data.source.path={folder}",
        "data.image_shape=[3,8,8]",
        "data.val_size=10",
        "data.test_size=6",
        "data.source.background=white",
    )
    small = [word for word in SMALL if not word.startswith(("data=", "data.source", "data.val", "data.image"))]
    train(composed(*own, *small), tmp_path / "run")
    trained = restore(tmp_path / "run", accelerator="cpu", progress=False)
    x, _ = trained.images(6)
    names = trained.keys()
    assert torch.equal(trained.read([str(folder / name) for name in names]), x)
    caplog.set_level("INFO")
    found = {
        name: image
        for names, images, _ in trained.inputs(str(folder))
        for name, image in zip(names, images, strict=True)
    }
    assert len(found) == 40
    assert all(torch.equal(found[str(folder / name)], image) for name, image in zip(names, x, strict=True))
    assert "40 files, prepared as in training" in caplog.text
    generated(tmp_path / "run", "anomalies", "num_samples=2", f"input={folder}/{names[0]}")
    with (tmp_path / "run/images/anomalies/anomalies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [*names, f"{folder}/{names[0]}"]
    generated(tmp_path / "run", "embeddings", "num_images=4")
    with np.load(tmp_path / "run/images/embeddings/embeddings.npz") as arrays:
        assert arrays["name"].tolist() == trained.keys(4)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (None, "No such file"),
        (b"junk", "cannot be read as a picture"),
    ],
    ids=["missing", "junk"],
)
def test_a_picture_of_another_kind_is_refused(run, tmp_path, pixels, said):
    path = tmp_path / "photo.png"
    if isinstance(pixels, bytes):
        path.write_bytes(pixels)
    elif pixels is not None:
        save(path, pixels)
    with pytest.raises(ConfigError, match=r"input=.*photo\.png.*" + said):
        restore(run()[0], accelerator="cpu").read(str(path))
