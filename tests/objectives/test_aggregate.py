"""Objectives on the aggregate posterior: estimates from batches against sums over the whole set."""

from itertools import combinations
from math import log

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, composed
from scipy import stats
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal
from zuko.flows import MAF

from vae_exp.config import ConfigError
from vae_exp.distributions import OneHots
from vae_exp.draws import Draw
from vae_exp.objectives import DIP, MMD, BetaTCVAE
from vae_exp.objectives.aggregate import log_aggregate, mmd
from vae_exp.priors import Mixture, StandardNormal
from vae_exp.runs.build import build
from vae_exp.runs.dry_run import check_step
from vae_exp.schedules import Constant, Linear

N, K = 6, 3
STEP = torch.tensor(0)
dims = pytest.mark.parametrize("d", [1, 2, 3])
estimators = pytest.mark.parametrize("estimator", ["mws", "mss"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def normals(d, n=N):
    """Means and scales `(n, d)` of posteriors that overlap, in double precision."""
    return torch.randn(n, d).double(), 0.5 + torch.rand(n, d).double()


class Given:
    """A model whose posteriors are given and whose decoder is the sum of the latents."""

    def __init__(self, q, d):
        self.q, self.prior = q, StandardNormal(d).double()

    def draw(self, x, y, num_samples=1):
        z = self.q.rsample((num_samples,))
        decode = lambda z: Independent(Normal(z.sum(-1)[..., None, None, None], 1.0), 3)  # noqa: E731
        return Draw(x, z, self.q, self.prior(), decode)


def given(d, n=N):
    mu, sigma = normals(d, n)
    return Given(Independent(Normal(mu, sigma), 1), d), torch.randn(n, 1, 1, 1).double()


def pairs(z, mu, sigma):
    """`log q(z_id | x_jd)`, `(..., N, N, D)`, by scipy."""
    return stats.norm.logpdf(z[..., :, None, :], mu[None], sigma[None])


# --- Densities ----------------------------------------------------------------------------------------------------


@dims
@pytest.mark.parametrize("size", range(2, N + 1))
def test_mss_is_unbiased_over_all_batches_that_hold_the_image(d, size):
    mu, sigma = normals(d)
    log_qz = torch.from_numpy(pairs((mu + sigma * torch.randn(N, d)).numpy(), mu.numpy(), sigma.numpy()))
    for table in (log_qz.sum(-1), *log_qz.unbind(-1)):  # the joint density and that of each dimension
        for i in range(N):
            batches = [batch for batch in combinations(range(N), size) if i in batch]
            estimates = [log_aggregate(table[b][:, b], N, "mss")[b.index(i)].exp() for b in map(list, batches)]
            torch.testing.assert_close(torch.stack(estimates).mean(), table[i].exp().mean(), rtol=1e-12, atol=0)


@dims
@pytest.mark.parametrize(("size", "train_size"), [(1, 6), (4, 6), (6, 60_000)])
def test_mws_is_the_published_formula(d, size, train_size):
    """log 1/(N M) sum_j q(z_i | x_j), M the size of the batch."""
    table = torch.randn(K, size, size).double() * d
    expected = np.log(np.exp(table.numpy()).sum(-1) / (train_size * size))
    np.testing.assert_allclose(log_aggregate(table, train_size, "mws"), expected, rtol=1e-12)


@dims
@estimators
@pytest.mark.parametrize("k", [1, K])
def test_with_the_whole_set_as_batch_mss_is_the_total_correlation_and_mws_is_too_large(d, estimator, k):
    model, x = given(d)
    _, draw = BetaTCVAE(6.0, N, estimator=estimator, num_samples=k)(model, x, None, STEP)
    q = model.q.base_dist
    log_q = pairs(draw.z.numpy(), q.loc.numpy(), q.scale.numpy())
    log_qz = np.log(np.exp(log_q.sum(-1)).mean(-1))
    log_q_dims = np.log(np.exp(log_q).mean(-2)).sum(-1)
    excess = (d - 1) * log(N) if estimator == "mws" else 0
    np.testing.assert_allclose(draw.extras[estimator], (log_qz - log_q_dims).mean(0) + excess, rtol=1e-10, atol=1e-12)


# --- beta-TCVAE ---------------------------------------------------------------------------------------------------


@dims
@estimators
@pytest.mark.parametrize("k", [1, K])
def test_with_all_weights_one_the_loss_is_the_elbo_of_the_latents(d, estimator, k):
    model, x = given(d)
    loss, draw = BetaTCVAE(1.0, 1000, estimator=estimator, num_samples=k)(model, x, None, STEP)
    torch.testing.assert_close(loss, -(draw.log_px + draw.log_pz - draw.log_qz).mean(), rtol=1e-12, atol=0)


@estimators
def test_weights_and_their_schedules(estimator):
    model, x = given(3)
    beta = Linear(0.0, 8.0, 100)
    loss, draw = BetaTCVAE(beta, N, alpha=0.5, gamma=3.0, estimator=estimator)(model, x, None, torch.tensor(25))
    q = model.q.base_dist
    table = torch.from_numpy(pairs(draw.z.numpy(), q.loc.numpy(), q.scale.numpy()))
    log_qz = log_aggregate(table.sum(-1), N, estimator)
    log_q_dims = sum(log_aggregate(table[..., i], N, estimator) for i in range(3))
    mi, tc, dwkl = draw.log_qz - log_qz, log_qz - log_q_dims, log_q_dims - draw.log_pz
    expected = -draw.log_px.mean() + (0.5 * mi + 2.0 * tc + 3.0 * dwkl).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


@estimators
def test_the_gradient_of_the_estimate_reaches_means_and_scales_of_all_images(estimator):
    mu, sigma = (t.requires_grad_() for t in normals(2))
    model = Given(Independent(Normal(mu, sigma), 1), 2)
    _, draw = BetaTCVAE(6.0, N, estimator=estimator)(model, torch.zeros(N, 1, 1, 1), None, STEP)
    draw.extras[estimator].sum().backward()
    assert mu.grad.all()
    assert sigma.grad.all()


@estimators
def test_the_estimate_is_logged_by_its_own_name_and_the_elbo_by_its(run, estimator):
    _, metrics = run("objective=beta_tcvae", f"objective.estimator={estimator}", "objective.beta=2")
    names = {name.split("/")[1] for name in metrics}
    assert names & {"tc", "total_correlation", "mws", "mss"} == {estimator}
    for stage in ("train", "val", "test"):
        terms = {name: metrics[f"{stage}/{name}"] for name in ("elbo", "recon", "kl")}
        assert terms["elbo"] == pytest.approx(-terms["recon"] - terms["kl"], rel=1e-6)


def test_the_size_of_the_set_is_that_of_the_data():
    assert composed(*SMALL, "objective=beta_tcvae").objective.train_size == 48
    assert composed(*SMALL, "objective=beta_tcvae", "data.val_size=20").objective.train_size == 44
    with pytest.raises(ConfigError, match=r"data\.train_size"):
        build(composed(*SMALL, "objective=beta_tcvae", "data.train_size=null"))


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        (r"objective\.train_size=0", {"train_size": 0}),
        (r"objective\.beta=-1", {"beta": -1.0}),
        (r"objective\.alpha=-1", {"alpha": -1.0}),
        (r"objective\.gamma=-1", {"gamma": -1.0}),
        (r"objective\.estimator=tc: choose one of mws, mss", {"estimator": "tc"}),
    ],
)
def test_what_beta_tcvae_does_not_take_is_named(named, arguments):
    with pytest.raises(ValueError, match=named):
        BetaTCVAE(**{"beta": 6.0, "train_size": 10, **arguments})


# --- DIP-VAE ------------------------------------------------------------------------------------------------------


def posterior(family, d):
    mu, sigma = normals(d, 7)
    if family == "full_normal":
        factor = torch.randn(7, d, d).double().tril(-1) + sigma.diag_embed()
        return MultivariateNormal(mu, scale_tril=factor), (factor @ factor.mT).numpy()
    q = Independent((Normal if family == "diagonal_normal" else Laplace)(mu, sigma), 1)
    square = sigma**2 if family == "diagonal_normal" else 2 * sigma**2
    return q, square.diag_embed().numpy()


@dims
@pytest.mark.parametrize("family", ["diagonal_normal", "full_normal", "laplace"])
@pytest.mark.parametrize("kind", [1, 2])
def test_dip_is_the_elbo_and_a_penalty_on_the_covariance_of_the_batch(kind, family, d):
    q, covs = posterior(family, d)
    x, diagonal = torch.randn(7, 1, 1, 1).double(), Linear(0.0, 40.0, 100)
    loss, draw = DIP(kind, 10.0, diagonal, 2)(Given(q, d), x, None, torch.tensor(50))
    cov = np.cov(q.mean.numpy().T, bias=True).reshape(d, d) + (covs.mean(0) if kind == 2 else 0)
    off = cov[~np.eye(d, dtype=bool)]
    expected = draw.recon.mean() + draw.kl.mean() + 10 * (off**2).sum() + 20 * ((np.diag(cov) - 1) ** 2).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("kind", "diagonal"), [(1, 20.0), (2, 2.0)])
@pytest.mark.parametrize("off_diagonal", [2.0, Linear(0.0, 4.0, 100)])
def test_dip_weights_the_diagonal_as_kumar_does_unless_it_is_given(kind, diagonal, off_diagonal):
    """lambda_d = 10 lambda_od for DIP-VAE-I, lambda_d = lambda_od for DIP-VAE-II (arXiv:1711.00848)."""
    model, x = Given(posterior("diagonal_normal", 3)[0], 3), torch.randn(7, 1, 1, 1).double()
    losses = []
    for objective in (DIP(kind, off_diagonal), DIP(kind, 2.0, diagonal)):
        torch.manual_seed(1)
        losses.append(objective(model, x, None, torch.tensor(50))[0])
    torch.testing.assert_close(*losses)
    cfg = composed("objective=dip", f"objective.kind={kind}").objective
    assert (cfg.off_diagonal, cfg.diagonal) == (10.0, None)


def test_the_covariance_of_dip_is_float32_under_bf16_autocast():
    mu = 10 + torch.randn(50, 3)
    model = Given(Independent(Normal(mu, 1.0), 1), 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss, draw = DIP(1, 1.0, 0.0)(model, torch.zeros(50, 1, 1, 1), None, STEP)
    cov = np.cov(mu.numpy().T, bias=True)
    penalty = (loss - draw.recon.mean() - draw.kl.mean()).item()
    assert penalty == pytest.approx((cov**2).sum() - (np.diag(cov) ** 2).sum(), abs=2e-3)  # of a loss of hundreds


def test_dip_of_q_needs_a_covariance_and_dip_of_the_means_does_not():
    """One-hot blocks know variances, but are correlated: these alone would not be the covariance of q(z)."""
    q = OneHots(torch.randn(5, 2, 3))
    with pytest.raises(ValueError, match="objective=dip needs the mean and covariance"):
        DIP(2, 1.0, 1.0)._covariance(Draw(None, torch.zeros(1), q, None, None))
    cov = DIP(1, 1.0, 1.0)._covariance(Draw(None, torch.zeros(1), q, None, None))
    np.testing.assert_allclose(cov, np.cov(q.mean.numpy().T, bias=True), atol=1e-6)
    with pytest.raises(ValueError, match=r"objective\.kind=3"):
        DIP(3, 1.0, 1.0)


# --- MMD ----------------------------------------------------------------------------------------------------------


def kernel(a, b):
    """The sum of inverse multiquadrics of Tolstikhin et al. (2018), of two points."""
    scales = [2 * len(a) * s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    return sum(c / (c + ((a - b) ** 2).sum()) for c in scales)


def slow_mmd(z, other):
    n = len(z)
    total = sum(kernel(s[i], s[j]) for s in (z, other) for i in range(n) for j in range(n) if i != j)
    return total / (n * (n - 1)) - 2 * sum(kernel(a, b) for a in z for b in other) / n**2


@dims
@pytest.mark.parametrize("size", [2, 5])
def test_mmd_is_the_sum_over_pairs(d, size):
    z, other = torch.randn(2, K, size, d).double()
    expected = [slow_mmd(a, b) for a, b in zip(z.numpy(), other.numpy(), strict=True)]
    np.testing.assert_allclose(mmd(z, other), expected, rtol=0, atol=1e-6)  # of sums of seven; 0.1 is a float32


@dims
def test_mmd_is_unbiased(d):
    """Zero in the mean for one distribution; for two what pairs of points give, one pair an estimate."""
    repeats, shift = 20_000, 0.7
    a, b = torch.randn(2, repeats, 4, d).double()
    estimates = mmd(a, b)
    assert estimates.mean().abs() < 4 * estimates.std() / repeats**0.5
    estimates = mmd(a, shift + 1.5 * b)
    one, two = torch.randn(2, 50_000, d).double().numpy()
    three, four = shift + 1.5 * torch.randn(2, 50_000, d).double().numpy()

    def k(a, b):
        square = ((a - b) ** 2).sum(-1)
        return sum(c / (c + square) for c in (2 * d * s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)))

    expected = k(one, two) + k(three, four) - k(one, three) - k(two, four)
    error = (estimates.var() / repeats + expected.var() / len(expected)) ** 0.5
    assert estimates.mean() > 10 * error
    assert abs(estimates.mean() - expected.mean()) < 4 * error


def test_mmd_of_a_batch_of_one_is_no_nan():
    """Evaluation may end with one: 16 images, 15 a batch."""
    assert mmd(torch.randn(K, 1, 2), torch.randn(K, 1, 2)).tolist() == [0] * K


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 100.0), (0.4, 10.0), (0.0, 1.0), (1.0, 7.0)])
@pytest.mark.parametrize("k", [1, K])
def test_weights_of_infovae(alpha, weight, k):
    model, x = given(2)
    torch.manual_seed(1)
    loss, draw = MMD(alpha, weight, k)(model, x, None, STEP)
    torch.manual_seed(1)
    same, z = model.draw(x, None, k), torch.randn(k, N, 2, dtype=torch.float64)
    torch.testing.assert_close(same.z, draw.z)
    discrepancy = np.mean([slow_mmd(a, b) for a, b in zip(draw.z.numpy(), z.numpy(), strict=True)])
    expected = draw.recon.mean() + (1 - alpha) * draw.kl.mean() + (alpha + weight - 1) * discrepancy
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    if alpha == 1:
        torch.testing.assert_close(loss, draw.recon.mean() + 7 * discrepancy, rtol=1e-6, atol=0)


def reached(prior, alpha):
    """The parameters of the prior that the loss has a gradient for, of all of them."""
    model, x = given(2)
    model.prior = prior.double()
    loss, _ = MMD(alpha, 10.0, 2)(model, x, None, STEP)
    gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
    return sum(gradient is not None and gradient.any().item() for gradient in gradients), len(gradients)


@pytest.mark.parametrize("alpha", [1.0, Constant(1.0)])
def test_a_prior_that_the_discrepancy_cannot_train_is_refused(alpha):
    with pytest.raises(
        ValueError, match=r"objective\.alpha=1 leaves out the KL, and samples of Mixture have no gradient"
    ):
        reached(Mixture(2, 3), alpha)
    model, x = given(2)
    model.prior = Mixture(2, 3).double().requires_grad_(False)  # nothing to train
    assert MMD(alpha, 10.0)(model, x, None, STEP)[0].isfinite()


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_a_mixture_learns_where_the_kl_has_a_weight(alpha):
    assert reached(Mixture(2, 3), alpha) == (3, 3)


def test_a_flow_learns_from_the_discrepancy_alone():
    trained, num = reached(MAF(2, transforms=1, hidden_features=[8]), 1.0)
    assert trained == num


def test_weights_of_infovae_are_checked():
    with pytest.raises(ValueError, match=r"objective\.alpha=1\.5: a number of at least 0 and at most 1"):
        MMD(1.5, 10.0)
    with pytest.raises(ValueError, match=r"objective\.weight=-1"):
        MMD(0.0, -1.0)


# --- One image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [DIP(1, 10.0), DIP(2, 10.0), MMD(0.0, 50.0), BetaTCVAE(6.0, 10)])
def test_one_image_has_no_penalty_as_the_last_batch_of_an_evaluation(objective):
    model, x = given(2, n=1)
    loss, draw = objective(model, x, None, STEP)
    torch.testing.assert_close(loss, -draw.elbo.mean(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("words", [["objective=mmd"], ["objective=dip"], ["objective=beta_tcvae"]])
def test_training_on_one_image_a_step_is_refused(words):
    model, data = build(composed(*SMALL, "data.train_size=32", *words))
    with pytest.raises(ConfigError, match=r"data\.batch_size: each process gets 1 image a step, and .* compares 2"):
        check_step(model, data.image_shape, 1)
    check_step(model, data.image_shape, 2)
