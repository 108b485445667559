"""Posteriors against scipy, torch, quadrature and enumeration; their samples and gradients against both."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.quadrature import assert_moments, plane
from scipy import integrate, stats
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.distributions import Laplace as TorchLaplace

from vae_exp import priors
from vae_exp.posteriors import Bernoulli, Categorical, DiagonalNormal, Flow, FullNormal, Laplace

D, F, SAMPLES = 3, 6, 40_000
CONTINUOUS = {
    "diagonal_normal": DiagonalNormal,
    "full_normal": FullNormal,
    "laplace": Laplace,
    "flow": lambda f, d: Flow(f, d, transforms=3, hidden=[16]),
}
continuous = pytest.mark.parametrize("make", CONTINUOUS.values(), ids=CONTINUOUS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def moved(posterior, by=0.3):
    """Away from where it starts: what starts at 0 is no longer."""
    for weight in posterior.parameters():
        weight.data += by * torch.randn_like(weight)
    return posterior


def heads(posterior, h):
    """The mean and the standard deviation that the two linear heads mean."""
    h = h.detach().numpy()
    mu, logvar = (
        h @ head.weight.detach().numpy().T + head.bias.detach().numpy() for head in (posterior.mu, posterior.logvar)
    )
    return mu, np.sqrt(np.exp(logvar))


def test_diagonal_normal_is_scipys():
    posterior, h, z = DiagonalNormal(F, D), 3 * torch.randn(5, F), torch.randn(7, 5, D)
    q = posterior(h)
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))
    mu, sigma = heads(posterior, h)
    assert np.ptp(sigma) > 0.5  # far from the case where sigma, its square and its root agree
    expected = stats.norm.logpdf(z, mu, sigma).sum(-1)
    np.testing.assert_allclose(q.log_prob(z).detach(), expected, rtol=1e-4, atol=1e-4)
    samples = q.rsample((SAMPLES,))
    for b in range(5):
        assert_moments(samples[:, b], mu[b], np.diag(sigma[b] ** 2))


def test_diagonal_normal_samples_carry_the_pathwise_gradient():
    posterior, h = DiagonalNormal(F, D), torch.randn(1, F)
    z = posterior(h).rsample((1,))
    z.sum().backward()
    # z = mu + exp(logvar / 2) eps, hence dz/dmu = 1 and dz/dlogvar = (z - mu) / 2
    torch.testing.assert_close(posterior.mu.bias.grad, torch.ones(D))
    half = (z[0, 0] - posterior.mu(h)[0]).detach() / 2
    torch.testing.assert_close(posterior.logvar.bias.grad, half, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.logvar.weight.grad, half[:, None] * h, rtol=1e-4, atol=1e-5)


def test_laplace_is_scipys():
    posterior, h, z = Laplace(F, D), 3 * torch.randn(5, F), torch.randn(7, 5, D)
    q = posterior(h)
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))
    mu, sigma = heads(posterior, h)
    expected = stats.laplace.logpdf(z, mu, sigma / np.sqrt(2)).sum(-1)
    np.testing.assert_allclose(q.log_prob(z).detach(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(q.stddev.detach(), sigma, rtol=1e-5)
    samples = q.rsample((SAMPLES,))
    for b in range(5):
        assert_moments(samples[:, b], mu[b], np.diag(sigma[b] ** 2))


@pytest.mark.parametrize("d", [1, D])
def test_full_normal_is_scipys(d):
    posterior, h, z = moved(FullNormal(F, d)), torch.randn(5, F), torch.randn(7, 5, d)
    q = posterior(h)
    assert (q.batch_shape, q.event_shape) == ((5,), (d,))
    mu, sigma = heads(posterior, h)
    samples = q.rsample((SAMPLES,))
    for b in range(5):
        factor = np.diag(sigma[b]).astype(float)
        if d > 1:
            unit = np.eye(d)
            unit[np.tril_indices(d, -1)] = posterior.below(h)[b].detach() / d
            factor = factor @ unit
            assert np.abs(np.tril(factor, -1)).max() > 0.03
        cov = factor @ factor.T
        expected = stats.multivariate_normal(mu[b], cov).logpdf(z[:, b].numpy())
        np.testing.assert_allclose(q.log_prob(z)[:, b].detach(), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(q.covariance_matrix[b].detach(), cov, rtol=1e-4, atol=1e-5)
        assert_moments(samples[:, b], mu[b], cov)


@pytest.mark.parametrize("make", [FullNormal, Flow])
@pytest.mark.parametrize("d", [1, D])
def test_full_normal_and_flow_start_as_diagonal_normals(make, d):
    posterior, h = make(F, d), torch.randn(5, F)
    diagonal = DiagonalNormal(F, d)
    start = getattr(posterior, "base", posterior).state_dict()
    diagonal.load_state_dict({name: value for name, value in start.items() if name.startswith(("mu", "logvar"))})
    z = torch.randn(7, 5, d)
    torch.testing.assert_close(posterior(h).log_prob(z), diagonal(h).log_prob(z), rtol=1e-4, atol=1e-4)


@continuous
@pytest.mark.parametrize("d", [1, D])
def test_every_row_has_its_own_posterior_and_every_weight_a_gradient(make, d):
    posterior, h = moved(make(F, d)), torch.randn(5, F)
    z = posterior(h).rsample((2,))
    assert z.shape == (2, 5, d)
    assert not posterior(h).sample((2,)).requires_grad
    z = z.detach()
    log_qz = posterior(h).log_prob(z)
    alone = torch.cat([posterior(h[b : b + 1]).log_prob(z[:, b : b + 1]) for b in range(5)], dim=1)
    torch.testing.assert_close(log_qz, alone, rtol=1e-4, atol=1e-4)
    assert len(set(posterior(h).log_prob(torch.zeros(d)).tolist())) == 5
    (posterior(h).rsample((2,)).square().sum() + log_qz.sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in posterior.parameters())
    assert all(weight.grad.any() for weight in posterior.parameters())


@continuous
def test_samples_and_their_gradients_are_those_of_the_density(make):
    """Density, moments and d/dh E f(z) by quadrature in two dimensions; samples within five standard errors."""
    posterior = moved(make(F, 2), by=0.2).double()
    h = (0.3 * torch.randn(1, F).double()).requires_grad_()

    def f(z):  # bounded, so that tails beyond the square do not count
        return z[..., 0].sin() + (z[..., 0] - 2 * z[..., 1]).cos()

    z, area = plane()
    mass = posterior(h).log_prob(z[:, None]).exp().squeeze(-1) * area
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)
    (slope,) = torch.autograd.grad((mass * f(z)).sum(), h)
    density, z = mass.detach().numpy(), z.numpy()
    mean = density @ z
    cov = (density[:, None] * (z - mean)).T @ (z - mean)
    assert np.abs(cov - np.eye(2)).max() > 0.1

    many = h.detach().repeat(SAMPLES, 1).requires_grad_()
    samples = posterior(many).rsample((1,))[0]
    assert_moments(samples, mean, cov)
    (slopes,) = torch.autograd.grad(f(samples).sum(), many)  # a row a sample
    error = slopes.std(0) / math.sqrt(SAMPLES)
    assert ((slopes.mean(0) - slope[0]).abs() < 5 * error).all()


@pytest.mark.parametrize("d", [1, 2, 8])
def test_flow_scores_its_own_samples_in_passing_as_others_do(d):
    posterior, h = moved(Flow(F, d, transforms=2, hidden=[16, 16]).double(), by=0.1), torch.randn(5, F).double()
    q = posterior(h)
    assert (q.batch_shape, q.event_shape) == ((5,), (d,))
    z, log_qz = q.rsample_and_log_prob((3,))
    assert (z.shape, log_qz.shape) == ((3, 5, d), (3, 5))
    torch.testing.assert_close(log_qz, q.log_prob(z))


def test_flow_samples_in_one_pass_a_transform(monkeypatch):
    posterior, passes = Flow(F, 8, transforms=2), []
    for each in posterior.transform.transforms:
        each.transform.hyper.register_forward_hook(lambda *_: passes.append(1))
    posterior(torch.randn(5, F)).rsample_and_log_prob((3,))
    assert len(passes) == 2


def test_flow_has_no_mean_to_show():
    with pytest.raises(NotImplementedError):
        _ = Flow(F, D)(torch.randn(5, F)).mean


def normals(*shape):
    return Independent(Normal(torch.randn(*shape), (0.5 * torch.randn(*shape)).exp()), 1)


@pytest.mark.parametrize("prior", [lambda: priors.StandardNormal(D)(), lambda: normals(D), lambda: normals(5, D)])
def test_kl_of_a_full_normal_to_a_diagonal_one_is_torchs(prior):
    q, p = moved(FullNormal(F, D))(torch.randn(5, F)), prior()
    expected = kl_divergence(q, MultivariateNormal(p.mean, torch.diag_embed(p.variance)).expand((5,)))
    kl = kl_divergence(q, p)
    assert kl.shape == (5,)
    torch.testing.assert_close(kl, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "p",
    [
        Independent(TorchLaplace(torch.zeros(D), torch.ones(D)), 1),
        Independent(Normal(torch.zeros(1, D), torch.ones(1, D)), 2),
        priors.Mixture(D)(),
        priors.Bernoulli(D)(),
    ],
)
def test_kl_of_a_full_normal_to_anything_else_is_not_known(p):
    with pytest.raises(NotImplementedError):
        kl_divergence(FullNormal(F, D)(torch.randn(5, F)), p)


@pytest.mark.parametrize("unit", [True, False])
def test_kl_of_a_laplace_to_a_normal_is_that_of_quadrature(unit):
    q = Laplace(F, 1)(2 * torch.randn(1, F))
    p = priors.StandardNormal(1)() if unit else normals(1)
    mu, b = q.mean.item(), q.base_dist.scale.item()
    left, right = stats.laplace(mu, b), stats.norm(p.mean.item(), p.stddev.item())

    def integrand(z):
        return left.pdf(z) * (left.logpdf(z) - right.logpdf(z))

    expected = sum(integrate.quad(integrand, *ends)[0] for ends in ((mu - 40 * b, mu), (mu, mu + 40 * b)))
    assert kl_divergence(q.base_dist, p.base_dist).item() == pytest.approx(expected, rel=1e-4)
    assert kl_divergence(q, p).item() == pytest.approx(expected, rel=1e-4)


# Discrete ones: all their values can be listed.
BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=D)))
BLOCKS = torch.stack([torch.eye(3)[list(k)].flatten() for k in itertools.product(range(3), repeat=2)])
DISCRETE = {
    "bernoulli": (lambda **kwargs: Bernoulli(F, D, **kwargs), priors.Bernoulli(D), BITS),
    "categorical": (lambda **kwargs: Categorical(F, 6, categories=3, **kwargs), priors.Categorical(6, 3), BLOCKS),
}
discrete = pytest.mark.parametrize(("make", "prior", "values"), DISCRETE.values(), ids=DISCRETE)


@discrete
def test_discrete_posteriors_sum_to_one_and_are_as_frequent_as_they_say(make, prior, values):
    q = make()(3 * torch.randn(5, F))
    probs = q.log_prob(values[:, None]).exp().detach()  # (values, 5)
    torch.testing.assert_close(probs.sum(0), torch.ones(5))
    torch.testing.assert_close(probs.T @ values, q.mean.detach(), rtol=1e-4, atol=1e-5)
    variance = probs.T @ values.square() - (probs.T @ values) ** 2
    torch.testing.assert_close(variance, q.variance.detach(), rtol=1e-4, atol=1e-5)
    samples = q.sample((SAMPLES,))
    assert samples.shape == (SAMPLES, 5, values.shape[1])
    assert samples.dtype == torch.float32
    frequency = (samples[:, :, None] == values).all(-1).float().mean(0).T  # (values, 5)
    error = (probs * (1 - probs) / SAMPLES).sqrt()
    assert ((frequency - probs).abs() < 5 * error + 1 / SAMPLES).all()


@discrete
def test_discrete_posteriors_are_softmaxes_of_their_heads(make, prior, values):
    posterior, h = make(), 3 * torch.randn(5, F)
    logits = posterior.logits(h).detach()
    if values is BITS:
        expected = 1 / (1 + np.exp(-logits.numpy()))
    else:
        expected = np.concatenate([torch.softmax(block, -1) for block in logits.split(3, -1)], axis=-1)
    np.testing.assert_allclose(posterior(h).mean.detach(), expected, rtol=1e-5, atol=1e-6)


@discrete
@pytest.mark.parametrize("relaxed", [False, True])
def test_kl_of_discrete_posteriors_is_the_sum_over_all_values(make, prior, values, relaxed):
    posterior, h = make(relaxed=relaxed), 3 * torch.randn(5, F)
    log_qz, log_pz = posterior.eval()(h).log_prob(values[:, None]), prior().log_prob(values)[:, None]
    q = posterior.train()(h)
    assert q.has_rsample == relaxed
    torch.testing.assert_close(kl_divergence(q, prior()), (log_qz.exp() * (log_qz - log_pz)).sum(0))


def test_kl_between_blocks_is_the_sum_over_all_values_whatever_the_prior():
    q, p = (Categorical(F, 6, categories=3)(3 * torch.randn(5, F)) for _ in range(2))
    log_qz, log_pz = q.log_prob(BLOCKS[:, None]), p.log_prob(BLOCKS[:, None])
    torch.testing.assert_close(kl_divergence(q, p), (log_qz.exp() * (log_qz - log_pz)).sum(0))


def test_blocks_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"prior\.categories differ, 3 and 2"):
        kl_divergence(Categorical(F, 6, categories=3)(torch.randn(5, F)), priors.Categorical(6, 2)())


@discrete
def test_relaxed_samples_are_for_training_alone(make, prior, values):
    posterior, h = make(relaxed=True), torch.randn(5, F)
    q = posterior.train()(h)
    z = q.rsample((100,))
    assert z.shape == (100, 5, values.shape[1])
    assert z.requires_grad
    assert ((z > 0) & (z < 1)).float().mean() > 0.9
    assert not q.sample((2,)).requires_grad
    with pytest.raises(ValueError, match=r"posterior\.relaxed=true .* objective\.kl=auto"):
        q.log_prob(z)
    hard = posterior.eval()(h)
    assert not hard.has_rsample
    assert set(hard.sample((100,)).unique().tolist()) == {0.0, 1.0}


def test_relaxed_bits_are_binary_concrete_and_their_gradient_that_of_quadrature():
    """`T logit(z) - l` is logistic noise (Maddison et al., 2017), dE[z]/dl by the midpoint rule over the noise."""
    posterior, h, temperature = Bernoulli(F, D, relaxed=True, temperature=0.7), 2 * torch.randn(1, F), 0.7
    logits = posterior.double().logits(h.double()).detach().requires_grad_()
    z = posterior(h.double()).rsample((SAMPLES,))[:, 0].detach()
    for noise in (temperature * z.logit() - logits.detach()).T:
        assert stats.kstest(noise, stats.logistic.cdf).pvalue > 1e-4
    u = (torch.arange(100_000).double()[:, None] + 0.5) / 100_000
    (expected,) = torch.autograd.grad(((logits + u.logit()) / temperature).sigmoid().mean(0).sum(), logits)

    many = logits.detach().repeat(SAMPLES, 1).requires_grad_()
    posterior.logits = torch.nn.Identity()
    (slope,) = torch.autograd.grad(posterior(many).rsample((1,)).sum(), many)  # a row a sample
    assert ((slope.mean(0) - expected[0]).abs() < 5 * slope.std(0) / math.sqrt(SAMPLES)).all()


def test_relaxed_blocks_are_the_gumbel_softmax():
    """`T (log z_i - log z_j) - (l_i - l_j)` is the difference of two Gumbels, a standard logistic."""
    posterior, h = Categorical(F, 6, categories=3, relaxed=True, temperature=0.7), 2 * torch.randn(1, F)
    logits = posterior.logits(h).detach().view(2, 3)
    z = posterior(h).rsample((SAMPLES,)).detach().view(SAMPLES, 2, 3)
    torch.testing.assert_close(z.sum(-1), torch.ones(SAMPLES, 2))
    for v, (i, j) in itertools.product(range(2), itertools.combinations(range(3), 2)):
        noise = 0.7 * (z[:, v, i].log() - z[:, v, j].log()) - (logits[v, i] - logits[v, j])
        assert stats.kstest(noise[noise.isfinite()].double(), stats.logistic.cdf).pvalue > 1e-4
        assert noise.isfinite().float().mean() > 0.999
    both = 0.7 * z.log() - logits  # the two blocks are independent
    correlation = np.corrcoef((both[:, 0, 0] - both[:, 0, 1]), (both[:, 1, 0] - both[:, 1, 1]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(SAMPLES)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Categorical(F, 20, categories=3), r"posterior\.categories=3, latent_dim=20"),
        (lambda: Categorical(F, 20, categories=1), r"posterior\.categories=1"),
        (lambda: Categorical(F, 20, 4, temperature=0.0), r"posterior\.temperature=0\.0"),
        (lambda: Bernoulli(F, 20, temperature=-1.0), r"posterior\.temperature=-1\.0"),
        (lambda: Flow(F, 20, transforms=0), r"posterior\.transforms=0"),
        (lambda: Flow(F, 20, hidden=[]), r"posterior\.hidden=\[\]"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()
