"""Sample quality: distances and manifolds against brute force, and the networks whose features they are of."""

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.in_memory import made
from helpers.runs import evaluated
from scipy.linalg import sqrtm

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data import Split
from vae_exp.metrics import features
from vae_exp.metrics.features import Inception, classifier
from vae_exp.metrics.quality import _made, distances, manifolds
from vae_exp.runs.trained import restore
from vae_exp.samplers import sampler

RNG = np.random.default_rng(0)
REAL, MADE = RNG.normal(size=(50, 3)), 0.8 * RNG.normal(size=(40, 3)) + 0.4


def radius(points, i, k):
    return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]


def test_manifolds_are_those_of_brute_force():
    def inside(point, points, k):
        """In how many balls."""
        return sum(np.linalg.norm(point - points[i]) <= radius(points, i, k) for i in range(len(points)))

    exact = {
        "precision": np.mean([inside(g, REAL, 3) > 0 for g in MADE]),
        "recall": np.mean([inside(r, MADE, 3) > 0 for r in REAL]),
        "density": np.mean([inside(g, REAL, 5) for g in MADE]) / 5,
        "coverage": np.mean(
            [min(np.linalg.norm(r - g) for g in MADE) <= radius(REAL, i, 5) for i, r in enumerate(REAL)]
        ),
    }
    assert len({round(value, 6) for value in exact.values()} - {0.0, 1.0}) == 4  # no two of them alike
    assert manifolds(REAL, MADE) == pytest.approx(exact)


def test_manifolds_do_not_hang_on_chunks(monkeypatch):
    import sklearn.metrics

    whole, chunks = manifolds(REAL, MADE), []

    def rows(a, b, working_memory):
        for part in np.array_split(a, 7):
            yield np.linalg.norm(part[:, None] - b, axis=-1)

    monkeypatch.setattr(sklearn.metrics, "pairwise_distances_chunked", rows)
    assert manifolds(REAL, MADE, chunks.append) == pytest.approx(whole)
    assert len(chunks) == 7
    assert sum(chunks) == 50


def test_the_frechet_distance_is_that_of_two_normals():
    means, covs = zip(*((a.mean(0), np.cov(a.T)) for a in (REAL, MADE)), strict=True)
    exact = np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0] + covs[1] - 2 * sqrtm(covs[0] @ covs[1]).real)
    assert distances(torch.tensor(REAL), torch.tensor(MADE))["fid"] == pytest.approx(exact, rel=1e-9)
    # Whitened to exact moments, with diagonal covariances: |m|^2 + sum (s - 1)^2.
    white = np.linalg.solve(np.linalg.cholesky(covs[0]), (REAL - means[0]).T).T
    m, s = np.array([1.0, 0, -2]), np.array([0.5, 1.0, 3.0])
    exact = np.sum(m**2) + np.sum((s - 1) ** 2)
    assert distances(torch.tensor(white), torch.tensor(white * s + m))["fid"] == pytest.approx(exact, rel=1e-6)


def test_the_kernel_distance_is_the_unbiased_mmd():
    def kernel(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    def within(points):
        n = len(points)
        return sum(kernel(points[i], points[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    exact = within(REAL) + within(MADE) - 2 * np.mean([kernel(a, b) for a in REAL for b in MADE])
    torch.manual_seed(0)
    found = distances(torch.tensor(REAL), torch.tensor(MADE))
    error = found["kid_std"] / 10  # of the mean over 100 random subsets, whose mean the whole is
    assert 4 * error < exact
    assert abs(found["kid"] - exact) < 4 * error


def test_images_of_all_classes_are_compared_where_files_are_sorted(tmp_path):
    x, y = torch.arange(90).float().view(90, 1, 1, 1), torch.arange(3).repeat_interleave(30)
    split = Split(x, y)
    trained = made(None, {"train": split, "val": split, "test": split}, tmp_path, 3)
    part = trained.subset("test", 30)
    (pixels, labels) = part.images(1000)
    assert len(pixels) == 30
    assert torch.bincount(labels, minlength=3).min() >= 4
    assert torch.equal(y[pixels.flatten().long()], labels)  # and each keeps its own
    assert torch.equal(pixels, trained.images(30)[0])
    assert trained.num_images() == 90
    assert trained.subset("test", 90) is trained


def test_the_classifier_is_trained_once_for_all_runs_beside(run, monkeypatch, tmp_path):
    first, _ = run("trainer.max_epochs=1", folder="first")
    second, _ = run("model=m2", "data.labelled=8", "trainer.max_epochs=1", folder="second")  # the same images
    other, _ = run("data.seed=1", "trainer.max_epochs=1", folder="other")
    networks = [classifier(restore(folder, accelerator="cpu", progress=False)) for folder in (first, other)]
    (name,) = (path.name for path in first.glob("classifier*"))
    assert not (other / name).exists()
    weights = networks[0].state_dict()
    (first / name).rename(tmp_path / "kept")
    torch.manual_seed(99)
    again = classifier(restore(first, seed=7, accelerator="cpu", progress=False)).state_dict()
    assert all(torch.equal(weights[key], again[key]) for key in weights)  # whatever the command's seed
    monkeypatch.setattr(features, "_train", None)
    beside = classifier(restore(second, accelerator="cpu", progress=False)).state_dict()
    assert all(torch.equal(weights[key], beside[key]) for key in weights)
    assert (second / name).exists()


def test_a_classifier_learns_and_its_features_are_standard(run):
    folder, _ = run("data.source.size=600", "data.val_size=300", "trainer.max_epochs=1")
    trained = restore(folder, accelerator="cpu", progress=False)
    network = classifier(trained)
    x, y = trained.images(300, "val")
    right = (network.head(network(x)).argmax(dim=-1) == y).float().mean()
    assert network.accuracy == pytest.approx(float(right))
    assert right > 0.9  # of four classes
    x, _ = trained.images(300, "train")
    assert network(x).mean(0).abs().max() < 1e-4
    assert (network(x).var(0) - 1).abs().max() < 0.01


@pytest.mark.parametrize("shape", [[1, 1, 8], [3, 2, 3], [1, 28, 20]])
def test_a_classifier_takes_images_of_any_size(shape):
    assert features.Classifier(shape, 3).eval()(torch.rand(2, *shape)).shape == (2, 64)


NAMES = {
    f"{name}{suffix}"
    for name in ("fid", "kid", "kid_std", "precision", "recall", "density", "coverage")
    for suffix in ("", "_of_train")
}


RUNS = [
    [],
    ["likelihood=bce", "data.binarize=dynamic"],
    ["model=cvae"],
    ["model=m2", "data.labelled=8"],
    ["model=hvae", "model.upper_dims=[2]"],
]


@pytest.mark.parametrize("overrides", slow_but([["model=m2", "data.labelled=8"]], RUNS))
def test_quality_of_runs(run, overrides):
    folder, _ = run(*overrides, "trainer.max_epochs=1")
    numbers = evaluated(folder, "metrics=[quality]")
    assert numbers == evaluated(folder, "metrics=[quality]")
    assert {f"feature_{name}" for name in NAMES} | {"feature_accuracy", "quality_images"} == set(numbers)
    assert numbers["feature_fid"] > numbers["feature_fid_of_train"]
    pixels = "sampled pixels" if "likelihood=bce" in overrides else "means of p(x|z)"
    assert numbers["quality_images"] == f"64, {pixels}, z from the prior"
    other = evaluated(folder, "metrics=[quality]", "quality.sampler=gmm", "quality.num_images=20", "split=train")
    fitted = {f"feature_{name}_gmm" for name in NAMES if not name.endswith("train")}
    assert fitted | {"feature_accuracy", "quality_images", "sampler_log_density", "prior_log_density"} == set(other)


def test_quality_is_refused_where_nothing_can_be_compared(run):
    folder, _ = run("data.num_classes=null", "trainer.max_epochs=1")
    with pytest.raises(NoMeaningError, match=r"no labels.*quality.inception"):
        evaluated(folder, "metrics=[quality]")
    (folder / "junk.pth").write_text("junk")
    with pytest.raises(ConfigError, match="not a state dict of torchvision's inception_v3"):
        evaluated(folder, "metrics=[quality]", f"quality.inception={folder / 'junk.pth'}")


@pytest.mark.slow
def test_inception_where_the_user_has_its_weights(run, tmp_path):
    from torchvision.models import inception_v3
    from torchvision.transforms.v2.functional import normalize, resize

    torch.manual_seed(0)
    reference = inception_v3(weights=None, init_weights=False).eval()
    torch.save(reference.state_dict(), tmp_path / "inception.pth")
    kept = []
    reference.fc.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        mine = Inception(str(tmp_path / "inception.pth")).eval()(x)
        reference(normalize(resize(x, [299, 299]).repeat(1, 3, 1, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert torch.allclose(mine, kept[0], atol=1e-5)
    folder, _ = run("data.num_classes=null", "trainer.max_epochs=1")
    options = ("metrics=[quality]", "quality.num_images=10", f"quality.inception={tmp_path / 'inception.pth'}")
    numbers = evaluated(folder, *options)
    assert {f"inception_{name}" for name in NAMES} | {"quality_images"} == set(numbers)


@pytest.mark.parametrize("likelihood", ["bce", "sse"])
def test_bits_are_sampled_and_grey_means_are_cut_to_the_range(run, likelihood):
    folder, _ = run(
        "data.binarize=dynamic", f"likelihood={likelihood}", "data.eval_batch_size=8", "trainer.max_epochs=1"
    )
    trained = restore(folder, accelerator="cpu", progress=False)
    is_bits = likelihood == "bce"
    parts = list(_made(trained, sampler(trained, "prior"), torch.zeros(20, dtype=torch.long), is_bits))
    x = torch.cat(parts)
    assert [len(part) for part in parts] == [8, 8, 4]
    assert x.min() >= 0
    assert x.max() <= 1
    assert bool(((x == 0) | (x == 1)).all()) == is_bits
    assert not torch.equal(parts[0], parts[1])  # each batch has noise of its own
