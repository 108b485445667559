"""Groups of the codes against the labels: on codes made by hand, and against enumeration."""

from itertools import permutations

import numpy as np
import pytest
import torch
from helpers.runs import evaluated
from torch.distributions import Independent, Normal

from vae_exp.config import ConfigError
from vae_exp.distributions import Mixture
from vae_exp.metrics import clusters as module
from vae_exp.metrics.clusters import agreement, clusters, matched_accuracy, responsibilities
from vae_exp.runs.trained import restore


def test_the_names_of_the_groups_do_not_matter():
    y = np.array([0, 0, 1, 1, 2, 2])
    assert agreement("k", np.array([7, 7, 0, 0, 3, 3]), y) == {"k_accuracy": 1, "k_ari": 1, "k_nmi": 1}


def test_the_matching_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for groups, classes in ((3, 3), (4, 3), (2, 4)):
        y, found = rng.integers(classes, size=40), rng.integers(groups, size=40)
        most = max(groups, classes)
        every = [np.mean(np.array(names)[found] == y) for names in permutations(range(most), groups)]
        assert matched_accuracy(found, y) == pytest.approx(max(every), abs=1e-12)


def test_one_group_for_all_says_nothing():
    numbers = agreement("k", np.zeros(9, int), np.arange(9) % 3)
    assert numbers == {"k_accuracy": pytest.approx(1 / 3), "k_ari": 0, "k_nmi": 0}


def test_ari_is_that_of_pairs():
    """Hubert & Arabie's formula, by counting pairs."""
    rng = np.random.default_rng(1)
    y, found = rng.integers(3, size=30), rng.integers(4, size=30)
    above = np.triu_indices(30, 1)
    same_y, same = ((a[:, None] == a)[above] for a in (y, found))
    expected = same_y.sum() * same.sum() / len(same)
    ari = ((same_y & same).sum() - expected) / ((same_y.sum() + same.sum()) / 2 - expected)
    assert agreement("k", found, y)["k_ari"] == pytest.approx(ari, abs=1e-12)


def test_responsibilities_are_those_of_bayes_rule():
    weights = torch.tensor([0.2, 0.8]).double()
    mu = torch.tensor([[-1.0, 0.0], [2.0, 1.0]]).double()
    prior = Mixture(weights.log(), Independent(Normal(mu, torch.ones(2, 2).double()), 1))
    z = torch.tensor([[0.3, -0.4], [1.0, 1.0]]).double()
    densities = torch.exp(-(z[:, None] - mu).square().sum(-1) / 2) * weights
    torch.testing.assert_close(responsibilities(prior, z), densities / densities.sum(1, keepdim=True))


def test_far_groups_are_found_by_all(run, monkeypatch):
    """Codes around the means of the prior's components, which are the classes."""
    folder, _ = run("prior=mixture", "prior.components=4", "trainer.max_epochs=1")
    trained = restore(folder, accelerator="cpu", progress=False)
    with torch.no_grad():
        trained.model.prior.mu.copy_(20 * torch.eye(4)[:, :3])
    y = np.arange(40) % trained.data.num_classes
    z = trained.model.prior.mu[torch.tensor(y) % 4] + 0.1 * torch.randn(40, 3)
    monkeypatch.setattr(module, "_codes", lambda trained: (z, y))
    numbers = clusters(trained, None)
    assert all(numbers[f"{name}_{kind}"] == 1 for name in ("kmeans", "gmm", "prior") for kind in ("accuracy", "nmi"))


def test_of_a_run(run):
    folder, _ = run()
    numbers = evaluated(folder, "metrics=clusters", "clusters.num_clusters=3")
    assert numbers["clusters"] == 3
    assert 0 < numbers["kmeans_accuracy"] < 1
    assert "prior_accuracy" not in numbers
    assert numbers == evaluated(folder, "metrics=clusters", "clusters.num_clusters=3")


@pytest.mark.parametrize(
    ("chosen", "options", "said"),
    [
        (("data.num_classes=null",), (), "no labels"),
        (("model=cvae",), (), "is given the label"),
        ((), ("clusters.num_clusters=1",), "num_clusters=1: at least 2"),
        ((), ("clusters.num_clusters=10000",), "num_clusters=10000: the test split has"),
    ],
)
def test_what_has_no_meaning_is_refused(run, chosen, options, said):
    folder, _ = run(*chosen)
    with pytest.raises(ConfigError, match=said):
        evaluated(folder, "metrics=clusters", *options)
