"""Disentanglement scores of hand-made codes, and of runs whose factors are known."""

import json
import re
from itertools import product
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.runs import ROOT, composed, evaluated
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LinearRegression

from vae_exp.config import NoMeaningError
from vae_exp.data import Sprites
from vae_exp.metrics import disentanglement as d
from vae_exp.metrics.factors import factors as factors_metric
from vae_exp.runs.build import build
from vae_exp.runs.trained import Trained
from vae_exp.training.job import train

PAGE = ROOT / "docs" / "evaluation.md"
SIZES = (3, 4, 5, 6)  # of the factors; the first has no order
GRID = np.array(list(product(*map(range, SIZES))))  # all combinations once: independent to the last digit
ORDERED = [False, True, True, True]
PERFECT = GRID[:, [2, 0, 3, 1]] * [3.0, -0.01, 1.0, 200.0] + [0.0, 5.0, -1.0, 1e4]
FOUR = np.array(list(product(range(5), repeat=4)))  # four factors alike, all ordered
MIXED = (FOUR - 2) @ np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2  # a rotation
SE = 0.5 / (4 * 500) ** 0.5  # at most, of the accuracy of 500 groups of each of four factors


def scores(codes, factors=GRID, is_ordered=ORDERED, seed=0):
    information = d.mutual_information(codes, factors)
    importances, informativeness = d.importance(codes, factors, is_ordered, seed)
    return {
        "mig": d.mig(information, d.entropy(factors)),
        "modularity": d.modularity(information),
        "sap": d.sap(codes, factors, is_ordered),
        "disentanglement": d.disentanglement(importances),
        "completeness": d.completeness(importances),
        "informativeness": informativeness.mean(),
        "factor_vae_score": d.factor_vae_score(codes, factors, seed),
        "beta_vae_score": d.beta_vae_score(codes, factors, seed),
    }


# Shape is guessed by a third of the second-best latent, in any case.
BEST = {
    "mig": 1, "modularity": 1, "sap": (3 + 2 / 3) / 4, "disentanglement": 1, "completeness": 1, "informativeness": 1,
    "factor_vae_score": 1, "beta_vae_score": 1,
}  # fmt: skip


def test_factors_permuted_and_scaled_have_the_best_scores():
    assert scores(PERFECT) == pytest.approx(BEST, abs=1e-9)


def test_constant_latents_change_nothing():
    dead = np.full((len(GRID), 2), 0.1)
    assert scores(np.hstack([dead, PERFECT])) == pytest.approx(BEST, abs=1e-9)


def test_constant_latents_alone_tell_nothing():
    found = scores(np.full((len(GRID), 2), 0.1))
    assert found.pop("informativeness") < 0.1  # of the shape guessed, a quarter of a third
    chance = {"factor_vae_score": 0.25, "beta_vae_score": 0.25}
    assert found == dict.fromkeys(found, 0) | chance


def test_a_rotation_by_which_all_latents_tell_the_same_has_the_worst_scores():
    """z = H v / 2, H of Hadamard: by symmetry each I(z_d; v_k), R^2 and importance is the same."""
    found = scores(MIXED, FOUR, [True] * 4)
    for name in ("mig", "modularity", "sap"):
        assert found[name] == pytest.approx(0, abs=1e-9)
    assert found["disentanglement"] < 0.005
    assert found["completeness"] < 0.005
    assert found["informativeness"] > 0.9  # nothing is lost
    for name in ("factor_vae_score", "beta_vae_score"):
        assert found[name] == pytest.approx(0.25, abs=5 * SE)


def test_a_factor_told_twice_lowers_what_asks_for_one_latent_a_factor():
    """Of x, told twice, there is no gap; its completeness is 1 - log 2 / log 5. One latent still tells one factor."""
    expected = BEST | {"mig": 3 / 4, "sap": (2 + 2 / 3) / 4}
    found = scores(np.hstack([PERFECT, -3.0 * GRID[:, 3:]]))
    assert found.pop("completeness") == pytest.approx((3 + 1 - log(2) / log(5)) / 4, abs=0.005)  # a tree breaks a tie
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)


def test_two_factors_left_out_count_as_chance_makes_them():
    """FactorVAE's latents vote for the two told; the linear classifier knows these, and guesses between the others."""
    found = scores(FOUR[:, :2], FOUR, [True] * 4)
    exact = {"mig": 0.5, "modularity": 1, "sap": 0.5, "informativeness": 0.5, "factor_vae_score": 0.5}
    assert {name: found[name] for name in exact} == pytest.approx(exact, abs=1e-9)
    # Of the two untold either latent has half the importance: P = (1, 0, 1/2, 1/2) / 2.
    assert found["disentanglement"] == pytest.approx(1 - scipy_entropy([0.5, 0.25, 0.25], base=4), abs=0.005)
    assert found["completeness"] == pytest.approx(0.5, abs=0.005)
    assert found["beta_vae_score"] == pytest.approx(0.75, abs=5 * SE)


@pytest.mark.slow
def test_noise_scores_what_chance_gives():
    num, sizes = 1000, np.array([3, 8, 8, 8])
    rng = np.random.default_rng(0)
    codes, values = rng.random((num, 6)), rng.integers(sizes, size=(num, 4))
    # 2 N I is chi square with (bins - 1) (values - 1) degrees of freedom.
    freedom = 19 * (sizes - 1)
    information = d.mutual_information(codes, values)
    error = 5 * np.sqrt(2 * freedom / 6) / (2 * num)
    assert np.all(np.abs(information.mean(axis=0) - freedom / (2 * num)) < error)
    found = scores(codes, values, ORDERED)
    assert 0 <= found["mig"] < np.mean(5 * np.sqrt(2 * freedom) / (2 * num) / np.log(sizes))
    assert 0 <= found["sap"] < 25 / num + 5 * (2 / 9 / num) ** 0.5
    assert found["disentanglement"] < 0.01
    assert found["completeness"] < 0.01
    assert found["informativeness"] < (1 / 3 + 5 * (2 / 9 / num) ** 0.5) / 4
    # The images are the same in all groups, a value of theirs 250: a few of them stand out by chance.
    assert abs(found["factor_vae_score"] - 0.25) < 0.1
    assert abs(found["beta_vae_score"] - 0.25) < 0.1


def test_one_latent_of_one_factor():
    found = scores(PERFECT[:, 1:2])  # the shape
    expected = {"mig": 1 / 4, "modularity": 1, "sap": 1 / 4, "completeness": 1, "factor_vae_score": 1 / 4}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("score", [d.factor_vae_score, d.beta_vae_score])
def test_groups_follow_the_seed(score):
    codes = GRID + 5 * np.random.default_rng(0).normal(size=GRID.shape)
    assert score(codes, GRID, 1) == score(codes, GRID, 1)
    assert score(codes, GRID, 1) != score(codes, GRID, 2**63)


@pytest.mark.parametrize("score", [d.factor_vae_score, d.beta_vae_score])
def test_the_unit_of_a_latent_does_not_matter(score):
    codes = GRID + np.random.default_rng(0).normal(size=GRID.shape)
    assert score(codes * [1, -1e3, 0.1, 10] + [0, 5, 0, 0], GRID, 0) == pytest.approx(score(codes, GRID, 0), abs=0.002)
    assert score(codes, GRID, 0) > 0.6  # but for the noise 1


def test_mutual_information_is_what_counting_gives():
    rng = np.random.default_rng(0)
    codes, values = rng.normal(size=(200, 3)), rng.integers(5, size=(200, 2))
    codes[:, 1] += values[:, 0]
    found = d.mutual_information(codes, values)
    for i, j in product(range(3), range(2)):
        z = codes[:, i]
        bins = [min(int((value - z.min()) / (z.max() - z.min()) * 20), 19) for value in z]
        pairs = list(zip(bins, values[:, j].tolist(), strict=True))
        expected = 0.0
        for b, v in set(pairs):
            joint = pairs.count((b, v)) / 200
            expected += joint * log(joint / (bins.count(b) / 200) / (np.sum(values[:, j] == v) / 200))
        assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_mutual_information_where_it_is_known():
    assert d.entropy(GRID) == pytest.approx(np.log(SIZES))
    halves = (GRID[:, 3:] >= 3).astype(float)  # one bit of six values, none of the others
    assert d.mutual_information(halves, GRID)[0] == pytest.approx([0, 0, 0, log(2)], abs=1e-12)
    many = np.arange(1000)[:, None]
    assert d.mutual_information(many * 1.0, many)[0, 0] == pytest.approx(log(20))  # no more than the bins tell


def test_gap_and_modularity_of_a_given_table():
    table = np.array([[0.5, 0.1], [0.3, 0.6], [0.0, 0.0]])
    assert d.mig(table, np.array([1.0, 2.0])) == pytest.approx((0.2 + 0.5 / 2) / 2)
    assert d.modularity(table) == pytest.approx((1 - 0.1**2 / 0.5**2 + 1 - 0.3**2 / 0.6**2) / 2)


def test_dci_of_a_given_table():
    table = np.array([[0.7, 0.0, 0.2], [0.1, 0.5, 0.8], [0.0, 0.0, 0.0], [0.2, 0.5, 0.0]])
    rows = [1 - scipy_entropy(row, base=3) for row in table[[0, 1, 3]]]
    assert d.disentanglement(table) == pytest.approx(np.average(rows, weights=table.sum(axis=1)[[0, 1, 3]]))
    assert d.completeness(table) == pytest.approx(np.mean(1 - scipy_entropy(table, base=4)))


def test_sap_of_ordered_factors_is_the_gap_of_r2():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 3))
    values = np.round(2 * codes @ rng.normal(size=(3, 2)) + rng.normal(size=(300, 2))).astype(int)
    gaps = []
    for v in values.T:
        r2 = sorted(LinearRegression().fit(z[:, None], v).score(z[:, None], v) for z in codes.T)
        gaps.append(r2[-1] - r2[-2])
    assert d.sap(codes, values, [True, True]) == pytest.approx(np.mean(gaps))


def test_sap_without_order_is_balanced():
    """Two normals two deviations apart, nine to one: a threshold half-way is right for Phi(1) of either."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [18_000, 2_000])
    codes = (rng.normal(size=20_000) + 2 * label)[:, None]
    # The error of the rarer one's accuracy, halved; the threshold is the best one of these images.
    assert d.sap(codes, label[:, None], [False]) == pytest.approx(0.8413, abs=5 * (0.8413 * 0.1587 / 2_000) ** 0.5 / 2)


def test_groups_share_a_value_that_is_not_rare():
    values = np.random.default_rng(0).permutation(np.repeat([7, 3, 5], [9, 10, 200]))
    groups, rng = d._Groups(values), np.random.default_rng(0)
    images = groups.sample(rng, 1000)
    assert images.shape == (1000, 64)
    assert np.all(values[images] == values[images[:, :1]])
    shares = np.bincount(values[images[:, 0]]) / 1000
    assert np.flatnonzero(shares).tolist() == [3, 5]
    assert shares[3] == pytest.approx(0.5, abs=5 * 0.5 / 1000**0.5)  # values are drawn evenly, not images
    assert len(np.unique(images)) == 210
    one, other = groups.sample_pairs(rng, 1000)
    assert np.all(values[one] == values[other])
    assert not np.any(one == other)
    pairs = np.unique(np.stack([one, other])[:, values[one] == 3], axis=1)
    assert pairs.shape[1] == 90  # all of them


def test_rare_and_constant_factors_have_no_groups():
    assert d.has_groups(np.repeat([0, 1], 10))
    assert not d.has_groups(np.repeat([0, 1], [10, 9]))
    assert not d.has_groups(np.zeros(100))


TINY = """
encoder.hidden=[8] encoder.out_features=8 decoder.hidden=[8] latent_dim=3 trainer.accelerator=cpu logger=csv
trainer.enable_progress_bar=false data.batch_size=50 data.eval_batch_size=128
trainer.log_every_n_steps=1
"""
TINY = tuple(TINY.split())
SPRITES = (*TINY, "data=sprites", "data.train_size=400", "data.source.val_size=50", "data.source.test_size=300")


def untrained(folder, *overrides):
    """What is read from the folder of a run, with the weights that it began with."""
    torch.manual_seed(0)
    cfg = composed(*overrides)
    model, data = build(cfg)
    (folder / "run.json").write_text("{}")
    return Trained(folder, cfg, model.eval().requires_grad_(False), data, progress=False)


@pytest.mark.slow
def test_a_run_is_scored_from_its_folder(tmp_path):
    folder = tmp_path / "run"
    train(composed(*SPRITES, "trainer.max_epochs=4", "optimizer.lr=0.02"), folder)
    numbers = evaluated(folder, "metrics=factors")
    names = {f"dci_{name}" for name in ("disentanglement", "completeness", "informativeness")}
    names |= {"mig", "sap", "modularity", "factor_vae_score", "beta_vae_score"}
    assert numbers.keys() == {*names, "factors"}
    assert all(type(numbers[name]) is float and 0 <= numbers[name] <= 1 for name in names)
    assert numbers["factors"]["used_latents"]
    assert numbers == evaluated(folder, "metrics=[factors]")
    written = json.loads((folder / "evaluation.json").read_text())
    assert {name: written[name] for name in numbers} == numbers
    assert numbers["factor_vae_score"] != evaluated(folder, "metrics=factors", "seed=1")["factor_vae_score"]
    fewer = evaluated(folder, "metrics=factors", "split=train", "factors.num_images=250")["factors"]
    assert fewer["num_images"] == 250
    assert {"factors.png", "factors_train.png"} <= {path.name for path in (folder / "images").iterdir()}


class Sampled:
    """A draw of a posterior that does not know its mean."""

    z_mean = z_variance = None

    def __init__(self, z):
        self.z = z

    def mean(self, num_samples):
        return self.z


class Point(Sampled):
    """A draw of an autoencoder's code."""

    @property
    def z_mean(self):
        return self.z


@pytest.mark.slow
@pytest.mark.parametrize("split", slow_but(["test"], ["train", "test"]))
def test_factors_are_those_of_the_images(tmp_path, split):
    """Codes made from the pictures: centres of mass, which x and y set, area, and a latent that is mostly noise."""
    trained = untrained(tmp_path, *SPRITES)
    trained.split = split

    def draw(x, y):
        mass, place = x[:, 0] / x.sum(dim=(1, 2, 3))[:, None, None], torch.arange(64.0)
        still = 0.05 * y  # variance under 0.01: it would tell the shape
        codes = torch.stack([mass.sum(1) @ place, still, x.sum(dim=(1, 2, 3)), mass.sum(2) @ place], dim=1)
        return SimpleNamespace(z_mean=codes, z_variance=noise * torch.ones_like(codes))

    noise = 1.0
    trained.model = SimpleNamespace(draw=draw)
    numbers = factors_metric(trained, 10_000)
    about = numbers["factors"]
    assert about["num_images"] == {"train": 400, "test": 300}[split]
    assert about["used_latents"] == [0, 2, 3]
    information = np.array([about["mutual_information"][name] for name in ("x", "scale", "y")])
    assert information.argmax(axis=1).tolist() == [0, 2, 3]
    assert information[0, 0] > 2.7
    assert information[2, 3] > 2.7  # of log 20, what the bins can tell
    assert np.all(np.array(list(about["mutual_information"].values()))[:, 1] == 0)
    # Of some of the images, drawn at random, each has its own factors.
    about = factors_metric(trained, 250)["factors"]
    information = np.array([about["mutual_information"][name] for name in ("x", "scale", "y")])
    assert about["num_images"] == 250
    assert information[0, 0] > 2.5
    assert information[2, 3] > 2.5
    assert 2 / 5 < numbers["sap"] < 4 / 5  # two gaps of 1, half of one of the scale
    # It counts where the posteriors are narrower still; nothing varies around samples, nor around points.
    noise = 1e-4
    sampled = SimpleNamespace(draw=lambda x, y: Sampled(draw(x, y).z_mean))
    point = SimpleNamespace(draw=lambda x, y: Point(draw(x, y).z_mean))
    for trained.model in (SimpleNamespace(draw=draw), sampled, point):
        about = factors_metric(trained, 10_000)["factors"]
        assert about["used_latents"] == [0, 1, 2, 3]
        assert np.argmax(about["mutual_information"]["shape"]) == 1


CODES = [
    ("model=cvae", "mean"),
    ("model=m2 data.labelled=30 data.labelled_per_batch=10", "mean"),
    ("model=ae", "mean"),
    ("posterior=bernoulli prior=bernoulli objective=wake_sleep", "mean"),
    ("posterior=categorical prior=categorical objective=wake_sleep posterior.categories=3", "mean"),
    ("prior=vamp prior.pseudo_inputs=8", "mean"),
    ("posterior=flow", "sample"),
    ("model=hvae", "sample"),
    ("model=m2 data.labelled=30 posterior=flow posterior.hidden=[8]", "sample"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "kind"), slow_but([CODES[0], CODES[-1]], CODES))
def test_every_kind_of_code_is_scored(tmp_path, chosen, kind, monkeypatch):
    monkeypatch.setattr(d, "VOTES", 20)
    numbers = factors_metric(untrained(tmp_path, *SPRITES, *chosen.split()), 300)
    assert numbers["factors"]["codes"] == kind
    json.dumps(numbers, allow_nan=False)


@pytest.mark.parametrize(
    ("chosen", "num", "why"),
    [
        (
            (*TINY, "data=fake", "data.image_shape=[1,8,8]"),
            100,
            r"of Fake are not known: data=sprites or data=dsprites",
        ),
        ((*SPRITES, "data.source.test_size=15"), 100, "15 images are too few.*split=train"),
    ],
)
def test_what_has_no_meaning_is_refused(tmp_path, chosen, num, why):
    with pytest.raises(NoMeaningError, match=why):
        factors_metric(untrained(tmp_path, *chosen), num)


def test_a_factor_without_groups_is_left_out(tmp_path):
    """Of 100 images none of the 32 places has ten."""
    about = factors_metric(untrained(tmp_path, *SPRITES), 100)["factors"]
    assert about["names"] == ["shape", "scale", "rotation"]
    assert about["left_out"] == ["x", "y"]


@pytest.mark.slow
@pytest.mark.parametrize("column", ["best", "noise"])
def test_the_page_says_what_factors_and_noise_score(column):
    """10,000 sprites' factors as codes, and ten random latents; sources as in docs/evaluation.md."""
    values = Sprites(10_000, 1, 1, seed=0).factors("train").numpy()
    codes = values * 1.0 if column == "best" else np.random.default_rng(0).standard_normal((len(values), 10))
    is_ordered = [False, True, True, True, True]
    information = d.mutual_information(codes, values)
    found = {"mig": d.mig(information, d.entropy(values)), "modularity": d.modularity(information)}
    found |= {"sap": d.sap(codes, values, is_ordered), "factor_vae_score": d.factor_vae_score(codes, values, 0)}
    found["beta_vae_score"] = d.beta_vae_score(codes, values, 0)
    if column == "best":  # forests on noise take a minute
        found |= scores(codes, values, is_ordered)
    rows = re.findall(r"^\| `(?:dci_)?(\w+)` \|.*\| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
    said = {name: best if column == "best" else noise for name, best, noise in rows}
    assert set(found) <= set(said)
    for name, value in found.items():
        # Group scores of noise are chance, with its error over 2,500 groups.
        tolerance = 0.03 if name.endswith("_score") else 0.01
        assert float(said[name]) == pytest.approx(value, abs=tolerance), name
