"""Rows of mixed columns: densities against SciPy, quadrature and enumeration, missing entries against a marginal."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from vae_exp.columns import RowsOf, columns_of, moments
from vae_exp.encoders import Columns as Encoder
from vae_exp.likelihoods import Columns
from vae_exp.supports import support_of

NAN = float("nan")
MIXED = [
    {"name": "a", "kind": "categorical", "categories": ["x", "y", "z"]},
    {"name": "b", "kind": "real", "missing": True},
    {"name": "c", "kind": "count"},
    {"name": "d", "kind": "positive"},
    {"name": "e", "kind": "binary"},
    {"name": "f", "kind": "categorical", "categories": [1, 2]},
]


def fitted(columns=MIXED, **options):
    """A likelihood that has seen rows: the real column has mean 50 and deviation 10, the counts have mean 3."""
    likelihood = Columns(columns, params_per_pixel=3, **options)
    rows = torch.tensor([[0.0, 40, 2, 1.0, 0, 1], [1, 60, 4, float(np.e**2), 1, 0], [2, NAN, 3, float(np.e), 1, 0]])
    likelihood.start_from([(rows.view(3, 1, 1, 6), torch.zeros(3))])
    return likelihood


def params(seed=0, batch=()):
    return torch.randn(*batch, 3, 1, 6, generator=torch.Generator().manual_seed(seed))


def terms(a, x):
    """log p of each column of a row by SciPy, in the table's own units; params (3, 6), scales of `fitted`."""
    sigma = np.exp(np.log(0.01) + np.log(1e4) * special.expit(a[1]))
    k = np.exp(np.log(0.01) + np.log(1e6) * special.expit(a[1]))
    deviation = np.std([0.0, 2.0, 1.0])
    return np.array(
        [
            special.log_softmax(a[:, 0])[int(x[0])],
            stats.norm.logpdf(x[1], 50 + 10 * a[0, 1], 10 * sigma[1]),
            stats.nbinom.logpmf(x[2], k[2], k[2] / (k[2] + 3 * np.exp(a[0, 2]))),
            stats.lognorm.logpdf(x[3], deviation * sigma[3], scale=np.exp(1 + deviation * a[0, 3])),
            stats.bernoulli.logpmf(x[4], special.expit(a[0, 4])),
            special.log_softmax(a[:2, 5])[int(x[5])],
        ]
    )


@pytest.mark.parametrize("x", [[2, 44.0, 0, 0.3, 1, 0], [0, 91.0, 12, 20.0, 0, 1]])
def test_a_row_is_scored_in_the_units_of_its_table(x):
    a = params()
    px = fitted()(a)
    expected = terms(a[:, 0].double().numpy(), x)
    row = torch.tensor(x).view(1, 1, 6)
    np.testing.assert_allclose(px.base_dist.log_prob(row).flatten(), expected, rtol=1e-5, atol=1e-5)
    assert px.log_prob(row).item() == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize("d", range(6))
def test_each_column_adds_up_to_one(d):
    base = fitted()(params(1)).base_dist
    row = torch.tensor([1, 50.0, 3, 2.0, 1, 0])

    def density(values):
        rows = row.repeat(len(values), 1).view(-1, 1, 1, 6).clone()
        rows[..., d] = torch.as_tensor(values, dtype=torch.float32).view(-1, 1, 1)
        return base.log_prob(rows)[..., d].flatten().double().exp().numpy()

    discrete = {0: 3, 2: 20_000, 4: 2, 5: 2}
    if d in discrete:
        total = density(np.arange(discrete[d])).sum()
    else:  # on a logarithmic grid for the log-normal
        u = np.linspace(-40, 40, 40_001)
        values = np.exp(u) if d == 3 else 50 + 50 * u
        total = integrate.trapezoid(density(values) * (values if d == 3 else 50), u)
    assert total == pytest.approx(1, abs=1e-4)


def test_a_missing_entry_has_no_term_and_no_gradient():
    a = params(2).requires_grad_()
    base = fitted()(a).base_dist
    row = torch.tensor([NAN, NAN, 3, NAN, NAN, NAN]).view(1, 1, 6)
    each = base.log_prob(row).flatten()
    each.sum().backward()
    assert each[[0, 1, 3, 4, 5]].eq(0).all()
    assert a.grad.isfinite().all()
    assert a.grad[:, 0, [0, 1, 3, 4, 5]].eq(0).all()
    assert a.grad[0, 0, 2] != 0


@pytest.mark.parametrize("hidden", [[], [1], [0, 3], [0, 1, 2, 3]])
def test_the_terms_of_what_is_there_give_the_marginal_of_a_linear_gaussian(hidden):
    """With the exact posterior of the observed part, log p(x_obs|z) + log p(z) - log q(z) is log p(x_obs) for any z."""
    rng = np.random.default_rng(0)
    weight, bias, noise = rng.standard_normal((4, 2)), rng.standard_normal(4), 0.4
    x = weight @ rng.standard_normal(2) + bias + noise * rng.standard_normal(4)
    seen = [d for d in range(4) if d not in hidden]
    likelihood = Columns([{"name": str(d), "kind": "real", "missing": True} for d in range(4)])
    raw = special.logit(np.log(noise / 0.01) / np.log(1e4))
    masked = torch.tensor([x[d] if d in seen else NAN for d in range(4)]).view(1, 1, 4)
    precision = np.eye(2) + weight[seen].T @ weight[seen] / noise**2
    mean = np.linalg.solve(precision, weight[seen].T @ (x[seen] - bias[seen])) / noise**2
    q = stats.multivariate_normal(mean, np.linalg.inv(precision))
    covariance = weight[seen] @ weight[seen].T + noise**2 * np.eye(len(seen))
    exact = stats.multivariate_normal.logpdf(x[seen], bias[seen], covariance) if seen else 0.0
    for z in rng.standard_normal((5, 2)):
        a = torch.tensor(np.stack([weight @ z + bias, np.full(4, raw)]))[:, None]
        log_px = likelihood(a).log_prob(masked).item()
        log_w = log_px + stats.multivariate_normal.logpdf(z, np.zeros(2)) - q.logpdf(z)
        assert log_w == pytest.approx(exact, abs=1e-4)


def test_rows_that_are_drawn_lie_in_the_set_that_is_scored():
    torch.manual_seed(0)
    likelihood = fitted()
    support = support_of(likelihood, (1, 1, 6))
    assert support == RowsOf(columns_of(MIXED))
    assert not support.is_discrete
    px = likelihood(params(3))
    rows = px.sample((20_000,))
    assert support.check(rows).all()
    numbers = rows[..., [1, 2, 4]].double()
    assert ((numbers.mean(0) - px.mean[..., [1, 2, 4]]).abs() < 4.5 * numbers.std(0) / 20_000**0.5).all()
    assert RowsOf(columns_of([MIXED[0], MIXED[2]])).is_discrete


def test_scales_are_those_of_the_entries_that_are_there():
    x = torch.tensor([[1e6 + 1, 5.0], [1e6 + 3, NAN], [NAN, NAN]])
    mean, deviation = moments([x[:1], x[1:]])
    assert mean.tolist() == [1e6 + 2, 5]
    assert deviation.tolist() == [1, 1]


def test_the_encoder_reads_each_column_in_its_form():
    encoder = Encoder(MIXED, hidden=[], out_features=9, activation="Identity")
    x = torch.tensor([[2, 70.0, 0, float(np.e), 1, 0], [NAN] * 6]).view(2, 1, 1, 6)
    encoder.shift[1], encoder.scale[1] = 50.0, 10.0
    (linear, _) = encoder.network.layers
    torch.nn.init.eye_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    h = encoder(x)
    np.testing.assert_allclose(h[0].detach(), [0, 0, 1, 2, 0, 1, 1, 1, 0], atol=1e-6)
    assert h[1].eq(0).all()


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="params_per_pixel=2: these columns need 3"):
        Columns(MIXED)
    with pytest.raises(ValueError, match=r"likelihood\.count=gamma"):
        Columns(MIXED, count="gamma", params_per_pixel=3)
    with pytest.raises(ValueError, match="b is complex"):
        columns_of([{"name": "b", "kind": "complex"}])
