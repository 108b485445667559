"""What is told of labels: probes of the codes, and Bayes' rule where the model is told the label."""

import math

import numpy as np
import pytest
import torch
from helpers.in_memory import made
from helpers.linear import Affine, features, full_normal, make
from helpers.runs import evaluated
from scipy import stats
from scipy.special import logsumexp
from torch import nn

from vae_exp import likelihoods
from vae_exp.config import NoMeaningError
from vae_exp.data import Split
from vae_exp.metrics.labels import bayes, labels, probes
from vae_exp.models import CVAE
from vae_exp.objectives import ELBO
from vae_exp.priors import StandardNormal

V, CLASSES, SIZE = 0.25, 3, 4
W = np.random.default_rng(0).normal(size=(SIZE, 2))
B = 0.3 * np.random.default_rng(1).normal(size=(CLASSES, SIZE))  # the means of the classes, which overlap
SHARES = (6, 3, 1)  # of the classes in training


class OfClass(nn.Module):
    """A decoder: x = W z + b_y."""

    def forward(self, z, c):
        return (z @ torch.tensor(W).T + c @ torch.tensor(B)).unflatten(1, (1, 1, SIZE))


class Infer(nn.Module):
    """An encoder: the features of p(z | x, y), off by `shift`, its factor times `scale`."""

    def __init__(self, shift, scale):
        super().__init__()
        self.cov = torch.linalg.inv(torch.eye(2).double() + torch.tensor(W.T @ W) / V)
        self.shift, self.factor = shift, torch.linalg.cholesky(self.cov) * scale

    def forward(self, x, c):
        mean = (x.flatten(1).double() - c @ torch.tensor(B)) @ torch.tensor(W) @ self.cov / V + self.shift
        rest = features(torch.zeros(2).double(), self.factor)[:, 2:]
        return torch.cat([mean, rest.expand(len(x), -1)], dim=1)


def conditional(tmp_path, num, shift=0.0, scale=1.0):
    parts = Infer(shift, scale), OfClass(), full_normal(), StandardNormal(2), likelihoods.Normal(V**0.5), ELBO()
    rng = np.random.default_rng(2)
    y = rng.integers(CLASSES, size=num)
    x = rng.normal(size=(num, 2)) @ W.T + B[y] + V**0.5 * rng.normal(size=(num, SIZE))
    test = Split(torch.tensor(x).float().view(num, 1, 1, SIZE), torch.tensor(y))
    train = Split(torch.zeros(sum(SHARES), 1, 1, SIZE), torch.arange(CLASSES).repeat_interleave(torch.tensor(SHARES)))
    trained = made(
        CVAE(*parts, context_dim=CLASSES).double(), {"train": train, "val": test, "test": test}, tmp_path, CLASSES
    )
    x = test.x.flatten(1).double().numpy()  # as the model sees them
    log_px = np.stack([stats.multivariate_normal(b, W @ W.T + V * np.eye(SIZE)).logpdf(x) for b in B], axis=1)
    return trained, log_px, y, log_px + np.log(np.array(SHARES) / sum(SHARES))


def test_bayes_rule_is_exact_where_the_posterior_is(tmp_path):
    trained, log_px, y, log_joint = conditional(tmp_path, 200)
    numbers = bayes(trained, 2)
    right = log_joint.argmax(axis=1) == y
    assert 0.4 < right.mean() < 0.9
    assert numbers["bayes_accuracy"] == pytest.approx(right.mean())
    assert numbers["bayes_accuracy_se_images"] == pytest.approx(right.std() / math.sqrt(200))
    marginal, given = -logsumexp(log_joint, axis=1), -log_px[np.arange(200), y]
    for name, each in (("nll_marginal", marginal), ("nll_given_label", given)):
        assert numbers[name] == pytest.approx(each.mean(), rel=1e-7)  # constants of the model are float32
        assert numbers[f"{name}_se_images"] == pytest.approx(each.std(ddof=1) / math.sqrt(200), rel=1e-6)
        assert numbers[f"{name}_se_draws"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_bayes_rule_with_a_wrong_posterior_is_within_its_errors(tmp_path):
    trained, log_px, y, log_joint = conditional(tmp_path, 20, shift=0.1, scale=1.2)
    exact = {"nll_marginal": -logsumexp(log_joint, axis=1).mean(), "nll_given_label": -log_px[np.arange(20), y].mean()}
    runs = []
    for seed in range(150):
        trained.seed = seed
        runs.append(bayes(trained, 200))
    for name, value in exact.items():
        found = np.array([run[name] for run in runs])
        stated = np.mean([run[f"{name}_se_draws"] for run in runs])
        assert found.std() == pytest.approx(stated, rel=0.23)  # 4 standard errors of a deviation of 150
        assert abs(found.mean() - value) < 4 * stated / math.sqrt(150) + 1e-3  # the bias is of the order 1 / K


@pytest.mark.parametrize("neighbours", [1, 5])
def test_neighbours_vote_as_by_brute_force(neighbours):
    torch.manual_seed(0)
    z_train, z = torch.randn(50, 3), torch.randn(40, 3)
    y_train, y = torch.randint(2, (50,)), torch.randint(2, (40,))
    right = 0
    for point, label in zip(z, y, strict=True):
        nearest = sorted(range(50), key=lambda i: float((z_train[i] - point).square().sum()))[:neighbours]
        right += int(sum(int(y_train[i]) for i in nearest) > neighbours / 2) == int(label)
    assert probes(z_train, y_train, z, y, neighbours)["knn_accuracy"] == right / 40


def test_separable_codes_are_told_apart_and_random_ones_are_not():
    torch.manual_seed(0)
    y = torch.randint(4, (2000,))
    corners = 3 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    # Far apart, in units that differ by a million: the probe standardises.
    separable = (corners[y] + torch.rand(2000, 2)) * torch.tensor([1e3, 1e-3])
    numbers = probes(separable[:1000], y[:1000], separable[1000:], y[1000:], 5)
    assert numbers["probe_accuracy"] == 1
    assert numbers["probe_train_images"] == 1000
    chance = probes(torch.randn(1000, 5), y[:1000], torch.randn(1000, 5), y[1000:], 5)
    for name in ("probe", "knn"):
        assert abs(chance[f"{name}_accuracy"] - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)
        assert chance[f"{name}_accuracy_se_images"] == pytest.approx(math.sqrt(0.25 * 0.75 / 1000), rel=0.2)


class Three(nn.Module):
    """An encoder: features of a posterior whose mean is the first two pixels, x 5 and x 1, and whose scale is 100."""

    def forward(self, x, c=None):
        x = x.flatten(1).double()[:, :2] * torch.tensor([5.0, 1.0])
        return torch.cat([x, torch.full((len(x), 2), 2 * math.log(100)), torch.zeros(len(x), 1)], dim=1)


def test_probes_read_the_posterior_means_of_labelled_images(tmp_path):
    """Samples, of scale 100, would tell nothing; images without a label teach nothing."""
    model = make(Three(), Affine(2, SIZE), ELBO())
    torch.manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.randn(300, 1, 1, SIZE)
    x[:, 0, 0, 0] = y + 0.1 * x[:, 0, 0, 0]
    split = Split(x, y)
    trained = made(model, {"train": split, "val": split, "test": split}, tmp_path, 3, labelled=60)
    numbers = labels(trained, 1000, 5, 1)
    assert numbers["probe_train_images"] == 60
    assert numbers["probe_accuracy"] == numbers["knn_accuracy"] == 1
    assert labels(trained, 30, 5, 1)["probe_train_images"] == 30


def test_data_without_labels_are_refused(tmp_path):
    split = Split(torch.zeros(10, 1, 1, SIZE), torch.full((10,), -1))
    trained = made(make(Three(), Affine(2, SIZE), ELBO()), {"train": split, "val": split, "test": split}, tmp_path)
    with pytest.raises(NoMeaningError, match="no labels"):
        labels(trained, 10, 5, 1)


RUNS = {
    "vae": (),
    "flow": ("posterior=flow",),
    "bernoulli": ("posterior=bernoulli", "posterior.relaxed=true"),
    "hvae": ("model=hvae", "model.upper_dims=[2]"),
    "ae": ("model=ae",),
    "m2": ("model=m2", "data.labelled=8"),
    "m2 flow": ("model=m2", "data.labelled=8", "posterior=flow", "posterior.hidden=[8]"),
    "cvae": ("model=cvae",),
}


@pytest.mark.parametrize(
    "name", [name if name in ("vae", "cvae") else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_every_model_has_its_label_metrics(run, name):
    folder, _ = run(*RUNS[name], "trainer.max_epochs=1")
    options = ("metrics=[labels]", "labels.num_samples=3")
    numbers = evaluated(folder, *options)
    assert numbers == evaluated(folder, *options)
    expected = {"bayes", "nll_marginal"} if name == "cvae" else {"probe", "knn"}
    assert {key.split("_acc")[0] for key in numbers} >= expected
    assert not ({"probe", "knn", "bayes"} - expected) & {key.split("_acc")[0] for key in numbers}
    assert all(0 <= value <= 1 for key, value in numbers.items() if key.endswith("_accuracy"))
    if name.startswith("m2"):  # its own error comes with the elbo
        assert 0 <= evaluated(folder, "metrics=[elbo]")["error"] <= 1
    if name == "cvae":  # sum_y p(y) p(x | y) >= p(y) p(x | y), and p(y) is about a quarter
        assert numbers["nll_marginal"] < numbers["nll_given_label"] + math.log(8)


def test_one_latent_has_no_error_over_draws(run):
    numbers = evaluated(run("model=cvae", "data.num_classes=4")[0], "metrics=[labels]", "labels.num_samples=1")
    assert [numbers[f"nll_{name}_se_draws"] for name in ("marginal", "given_label")] == [None, None]
    assert all(math.isfinite(value) for value in numbers.values() if value is not None)


def test_probes_are_not_scored_on_what_they_learned(run):
    """An image is the nearest neighbour of itself: labels at random would be told five times as often as by chance."""
    with pytest.raises(NoMeaningError, match="split=train"):
        evaluated(run()[0], "metrics=[labels]", "split=train")
