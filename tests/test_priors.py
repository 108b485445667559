"""Priors against scipy, torch, quadrature and enumeration; their samples against their moments."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from helpers.quadrature import assert_moments, plane
from scipy import special, stats
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence
from zuko.flows import MAF, NSF

from vae_exp.posteriors import DiagonalNormal, Flow, FullNormal, Laplace
from vae_exp.priors import Bernoulli, Categorical, Mixture, StandardNormal, Vamp

D, CLASSES, SAMPLES = 3, 4, 40_000
IMAGE = (1, 2, 3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """The part of a model that a Vamp prior is attached to."""

    def __init__(self, prior, posterior=DiagonalNormal, context_dim=0, d=D):
        super().__init__()
        self.encoder = nn.Linear(6 + context_dim, 5)
        self.posterior = posterior(5, d)
        self.prior = prior
        prior.attach(self.infer)

    def infer(self, x, c):
        x = x.flatten(1) if c is None else torch.cat([x.flatten(1), c], dim=-1)
        return self.posterior(self.encoder(x))


def vamp(context_dim=0, k=7, **kwargs):
    net = Net(Vamp(IMAGE, context_dim, k), context_dim=context_dim, **kwargs)
    for weight in net.parameters():  # posteriors far from each other and from N(0, I)
        if weight is not net.prior.logits:
            weight.data = 0.7 * torch.randn_like(weight)
    return net


def mixture(prior, c=None):
    """Weights `(..., M)`, means and scales `(..., M, D)` of a diagonal mixture, from its raw parameters."""
    logits, loc, raw = (p.detach().double().numpy() for p in (prior.logits, prior.mu, prior.raw_scale))
    if c is not None:
        shift = (c @ prior.shift.weight.T).detach().double().numpy()
        m = len(logits)
        logits = logits + shift[:, :m]
        loc = loc + shift[:, m : m + m * D].reshape(-1, m, D)
        raw = raw + shift[:, m + m * D :].reshape(-1, m, D)
    return special.softmax(logits, axis=-1), loc, 0.01 + np.exp(raw)


def test_standard_normal_is_scipys():
    prior = StandardNormal(D)
    z = 3 * torch.randn(7, 5, D)
    expected = stats.multivariate_normal(np.zeros(D), np.eye(D)).logpdf(z)
    for c in (None, torch.randn(5, CLASSES)):
        p = prior(c)
        assert (p.batch_shape, p.event_shape) == ((), (D,))
        np.testing.assert_allclose(p.log_prob(z), expected, rtol=1e-5)
    assert_moments(prior().sample((SAMPLES,)), np.zeros(D), np.eye(D))


@pytest.mark.parametrize("prior", [StandardNormal(8), Bernoulli(8), Categorical(8, 4)])
def test_fixed_priors_have_nothing_to_learn_or_store(prior):
    assert list(prior.parameters()) == []
    assert prior.state_dict() == {}


@pytest.mark.parametrize("conditional", [False, True])
def test_mixture_is_the_weighted_sum_of_scipys_normals(conditional):
    prior = Mixture(D, components=5, context_dim=CLASSES if conditional else 0)
    for weight in prior.parameters():
        weight.data += 0.5 * torch.randn_like(weight)
    c = torch.eye(CLASSES) if conditional else None
    p = prior(c)
    assert (p.batch_shape, p.event_shape) == ((CLASSES,) if conditional else (), (D,))
    z = 2 * torch.randn(7, CLASSES, D)
    weights, loc, scale = mixture(prior, c)
    assert np.ptp(scale) > 0.5  # far from the case where the scale, its square and its log agree
    parts = stats.norm.logpdf(z[:, :, None], loc, scale).sum(-1)
    expected = special.logsumexp(parts, b=weights, axis=-1)
    np.testing.assert_allclose(p.log_prob(z).detach(), expected, rtol=1e-4, atol=1e-4)
    assert_mixture_moments(p.sample((SAMPLES,)), weights, loc, scale)


def assert_mixture_moments(samples, weights, loc, scale):
    samples = samples.view(len(samples), -1, D)
    weights, loc, scale = (a.reshape(-1, *a.shape[-k:]) for a, k in ((weights, 1), (loc, 2), (scale, 2)))
    for b in range(samples.shape[1]):
        mean = weights[b] @ loc[b]
        within = np.diag(weights[b] @ scale[b] ** 2)
        between = (weights[b][:, None] * (loc[b] - mean)).T @ (loc[b] - mean)
        assert_moments(samples[:, b], mean, within + between)


def test_mixture_is_torchs():
    prior = Mixture(D, components=5)
    normals = Independent(Normal(prior.mu, 0.01 + prior.raw_scale.exp()), 1)
    expected = MixtureSameFamily(TorchCategorical(logits=prior.logits), normals)
    z = 2 * torch.randn(7, 2, D)
    torch.testing.assert_close(prior().log_prob(z), expected.log_prob(z))


def test_mixture_starts_from_distinct_unit_normals():
    """Between means drawn from N(0, I) the squared distance is 2 chi^2 with D degrees of freedom."""
    weights, loc, scale = mixture(Mixture(D, components=200))
    np.testing.assert_allclose(weights, 1 / 200)
    np.testing.assert_allclose(scale, 1, rtol=1e-6)
    distance = ((loc[:, None] - loc) ** 2).sum(-1)[np.triu_indices(200, 1)] / 2
    assert distance.min() > 0
    assert stats.kstest(distance[:: len(distance) // 200], stats.chi2(D).cdf).pvalue > 1e-3


def test_mixture_keeps_its_gradients_finite_when_a_component_shrinks():
    prior = Mixture(D, components=2)
    prior.raw_scale.data.fill_(-200.0)
    prior().log_prob(10 * torch.randn(5, D)).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in prior.parameters())
    assert (mixture(prior)[2] == 0.01).all()


def conditional_priors():
    return {
        "mixture": Mixture(D, 5, CLASSES),
        "vamp": vamp(CLASSES).prior,
        "flow": MAF(D, CLASSES, transforms=2, hidden_features=[8]),
    }


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_conditional_priors_depend_on_their_own_context_only(name):
    prior = conditional_priors()[name]
    z = torch.randn(D).expand(CLASSES, D)
    log_pz = prior(torch.eye(CLASSES)).log_prob(z)
    assert len(set(log_pz.tolist())) == CLASSES
    alone = torch.stack([prior(c[None]).log_prob(z[:1])[0] for c in torch.eye(CLASSES)])
    torch.testing.assert_close(log_pz, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("posterior", [DiagonalNormal, FullNormal, Laplace, Flow])
@pytest.mark.parametrize("context_dim", [0, CLASSES])
def test_vamp_is_the_mean_of_the_posteriors_of_its_class(posterior, context_dim):
    net = vamp(context_dim, posterior=posterior)
    z, k = torch.randn(2, CLASSES, D), 7
    u, labels = net.prior.logits.sigmoid(), [i % CLASSES for i in range(k)]
    p = net.prior(torch.eye(CLASSES) if context_dim else None)
    assert (p.batch_shape, p.event_shape) == ((CLASSES,) if context_dim else (), (D,))
    for b in range(CLASSES):
        own = [i for i in range(k) if labels[i] == b or not context_dim]
        one_hot = torch.eye(CLASSES)[[b]] if context_dim else None
        each = torch.stack([net.infer(u[i : i + 1], one_hot).log_prob(z[:, b]) for i in own])
        expected = each.logsumexp(0) - math.log(len(own))
        torch.testing.assert_close(p.log_prob(z)[:, b], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("context_dim", [0, CLASSES])
def test_vamp_samples_from_all_its_posteriors(context_dim):
    net = vamp(context_dim)
    c = torch.eye(CLASSES) if context_dim else None
    q = net.infer(net.prior.pseudo_inputs, net.prior.context)
    loc, scale = q.mean.detach().double().numpy(), q.stddev.detach().double().numpy()
    weights = np.full((1, 7), 1 / 7)
    if context_dim:
        of_class = np.arange(7) % CLASSES == np.arange(CLASSES)[:, None]
        weights = of_class / of_class.sum(1, keepdims=True)
    loc, scale = (np.broadcast_to(a, (len(weights), *a.shape)) for a in (loc, scale))
    samples = net.prior(c).sample((SAMPLES,))
    assert samples.shape == (SAMPLES, *([CLASSES] if context_dim else []), D)
    assert not samples.requires_grad
    assert_mixture_moments(samples, weights, loc, scale)


@pytest.mark.parametrize("context_dim", [0, 1, CLASSES])
def test_the_constants_of_vamp_lie_as_ddp_needs_them(context_dim):
    """Row by row, even where a dimension is 1: DDP writes each buffer over itself, and torch compares the strides."""
    for buffer in Vamp(IMAGE, context_dim, 7).buffers():
        assert buffer.stride() == torch.empty(buffer.shape).stride()


def test_vamp_trains_encoder_and_pseudo_inputs_but_stores_the_encoder_once():
    net = vamp(CLASSES)
    net.prior(torch.eye(CLASSES)).log_prob(torch.randn(CLASSES, D)).sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in net.parameters())
    assert list(net.prior.state_dict()) == ["logits"]
    assert len(list(net.parameters())) == 2 + 4 + 1


def test_a_deep_copy_of_a_model_with_a_vamp_prior_uses_its_own_encoder():
    net, z = vamp(), torch.randn(5, D)
    twin = copy.deepcopy(net)
    before = net.prior().log_prob(z)
    twin.encoder.weight.data += 1
    torch.testing.assert_close(net.prior().log_prob(z), before)
    assert not torch.allclose(twin.prior().log_prob(z), before)
    assert twin.prior.infer.__self__ is twin


@pytest.mark.parametrize("context_dim", [0, CLASSES])
def test_vamp_starts_from_distinct_training_images_of_the_right_class(context_dim):
    images, labels = torch.rand(50, *IMAGE).round(decimals=1), torch.randint(CLASSES, (50,))
    images[0], images[1] = 0.0, 1.0  # the ends, where a logit is infinite
    if context_dim:
        labels[2] = -1  # without a label: not taken
    prior = Vamp(IMAGE, context_dim, pseudo_inputs=9)
    prior.start_from(zip(images.split(8), labels.split(8), strict=True))
    squeezed, taken = prior.pseudo_inputs, []
    assert ((squeezed > 0) & (squeezed < 1)).all()
    for k, u in enumerate((squeezed - 0.05) / 0.9):
        (match,) = (images - u).abs().amax(dim=(1, 2, 3)).lt(1e-5).nonzero().flatten().tolist()
        assert not context_dim or labels[match] == k % CLASSES
        taken.append(match)
    assert len(set(taken)) == 9
    if not context_dim:
        assert taken == list(range(9))
    for label in range(context_dim):  # the first of each class
        own = (labels == label).nonzero().flatten().tolist()
        assert taken[label::CLASSES] == own[: len(taken[label::CLASSES])]


def test_vamp_keeps_random_pseudo_inputs_where_there_are_too_few_images():
    prior = Vamp(IMAGE, 0, pseudo_inputs=5)
    before = prior.pseudo_inputs.clone()
    assert ((before > 0.05) & (before < 0.95)).all()
    prior.start_from([(torch.zeros(2, *IMAGE), torch.zeros(2).long())])
    torch.testing.assert_close(prior.pseudo_inputs[:2], torch.full((2, *IMAGE), 0.05))
    torch.testing.assert_close(prior.pseudo_inputs[2:], before[2:])


def test_vamp_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="attach"):
        Vamp(IMAGE)()
    with pytest.raises(ValueError, match=r"prior\.context_dim=4: labels"):
        vamp(CLASSES).prior()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Vamp(IMAGE).start_from([(2 * torch.ones(1, *IMAGE), torch.zeros(1).long())])


# Latents from 1/2 N(-a e1, s^2 I) + 1/2 N(a e1, s^2 I). With t = exp(-a^2 / 2s^2), where the modes meet:
#   E log p(z) = -ln 2 - D ln s - D/2 ln 2 pi - D/2 + O(t)
#   E log N(z; 0, I) = -D/2 ln 2 pi - (a^2 + D s^2) / 2
# so the gain of the best prior over N(0, I) is (a^2 + D s^2) / 2 - D/2 - D ln s - ln 2, up to O(t), here 3e-4.
A, S = 2.0, 0.5
GAIN = (A**2 + D * S**2) / 2 - D / 2 - D * math.log(S) - math.log(2)


def two_modes(n):
    z = S * torch.randn(n, D)
    z[::2, 0] += A
    z[1::2, 0] -= A
    return z


class ScaledPixels(nn.Module):
    """A fixed linear encoder with a fixed scale: q(z | u) = N(4 (2u - 1), S^2 I)."""

    def infer(self, x, c):
        return Independent(Normal(4 * (2 * x.flatten(1) - 1), S), 1)


def untrained_vamp():
    """Its pseudo-inputs start at the images whose posteriors are the two modes, squeezed: at +-0.9 a."""
    prior = Vamp((1, 1, D), pseudo_inputs=10)
    prior.attach(ScaledPixels().infer)
    images = torch.full((20, 1, 1, D), 0.5)
    images[::2, ..., 0] += A / 8
    images[1::2, ..., 0] -= A / 8
    prior.start_from([(images, torch.zeros(20).long())])
    return prior


@pytest.mark.parametrize("make", [lambda: Mixture(D, 10), untrained_vamp], ids=["mixture", "vamp"])
def test_two_modes_are_worth_the_closed_form_gain_over_the_standard_normal(make):
    prior = make()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        (-prior().log_prob(two_modes(256)).mean()).backward()
        optimizer.step()
    z = two_modes(20_000)
    with torch.no_grad():
        gain = prior().log_prob(z) - StandardNormal(D)().log_prob(z)
    error = gain.std().item() / math.sqrt(len(z))
    assert GAIN > 2
    assert gain.mean().item() == pytest.approx(GAIN, abs=0.02 + 4 * error)


FLOWS = {"flow": MAF, "docs/extending.md": NSF}


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_flows_are_densities_with_the_moments_of_their_samples(flow):
    prior = flow(2, transforms=3, hidden_features=[16]).double()
    for weight in prior.parameters():
        weight.data *= 1.5  # not where it starts
    z, area = plane(8.0)
    with torch.no_grad():
        density = (prior().log_prob(z).exp() * area).numpy()
    assert density.sum() == pytest.approx(1, abs=1e-3)  # a spline has a kink at each knot
    mean = density @ z.numpy()
    cov = (density[:, None] * (z.numpy() - mean)).T @ (z.numpy() - mean)
    assert np.abs(cov - np.eye(2)).max() > 0.05
    assert_moments(prior().sample((SAMPLES,)), mean, cov)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_flows_start_near_the_standard_normal_and_stay_finite_far_away(flow):
    """KL(N(0, I) || p) at the start is a nat or two in 20 dimensions, where a posterior's KL is about 25."""
    prior, z = flow(20, transforms=3, hidden_features=[64, 64]), torch.randn(4000, 20)
    standard = StandardNormal(20)()
    with torch.no_grad():
        assert 0 < (standard.log_prob(z) - prior().log_prob(z)).mean() < 2
    far = (1000 * torch.randn(5, 20)).requires_grad_()
    log_pz = prior().log_prob(far)
    log_pz.sum().backward()
    assert log_pz.isfinite().all()
    assert far.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in prior.parameters() if weight.grad is not None)
    if flow is NSF:  # splines end at 5: beyond, it is N(0, I)
        beyond = 5.1 + torch.rand(5, 20)
        torch.testing.assert_close(prior().log_prob(beyond), standard.log_prob(beyond), rtol=1e-5, atol=1e-3)


def states(v, c):
    """All `c^v` values of v one-hot blocks, `(c^v, v c)`."""
    return torch.stack([torch.eye(c)[list(k)].flatten() for k in itertools.product(range(c), repeat=v)])


def test_bernoulli_is_uniform_on_all_bits():
    p = Bernoulli(D)(torch.randn(5, CLASSES))
    assert (p.batch_shape, p.event_shape) == ((), (D,))
    z = torch.tensor(list(itertools.product([0.0, 1.0], repeat=D)))
    torch.testing.assert_close(p.log_prob(z).exp(), torch.full((2**D,), 2.0**-D))
    samples = p.sample((SAMPLES,))
    assert set(samples.unique().tolist()) == {0.0, 1.0}
    assert_moments(samples, np.full(D, 0.5), np.eye(D) / 4)


def test_categorical_is_uniform_on_all_blocks():
    p = Categorical(6, 3)(torch.randn(5, CLASSES))
    assert (p.batch_shape, p.event_shape) == ((), (6,))
    torch.testing.assert_close(p.log_prob(states(2, 3)).exp(), torch.full((9,), 1 / 9))
    samples = p.sample((SAMPLES,))
    counts = (samples @ states(2, 3).T == 2).sum(0).numpy()
    assert counts.sum() == SAMPLES
    assert stats.chisquare(counts).pvalue > 1e-4


def test_kl_of_bits_to_fair_coins_is_torchs_and_saturates_without_a_nan():
    logits = torch.tensor([-200.0, -3.0, 0.0, 0.7, 200.0]).requires_grad_()
    coin = torch.distributions.Bernoulli
    kl = kl_divergence(coin(logits=logits), Bernoulli(5)().base_dist)
    torch.testing.assert_close(kl[1:4], kl_divergence(coin(logits=logits), coin(logits=torch.zeros(5)))[1:4])
    torch.testing.assert_close(kl[[0, 4]], torch.full((2,), math.log(2)))
    (slope,) = torch.autograd.grad(kl.sum(), logits)
    p = logits.sigmoid()
    torch.testing.assert_close(slope, (logits * p * (1 - p)).detach())  # d/dl of ln 2 - H = l s'(l)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Mixture(3, components=0), r"prior\.components=0"),
        (lambda: Vamp(IMAGE, pseudo_inputs=0), r"prior\.pseudo_inputs=0"),
        (lambda: Vamp(IMAGE, context_dim=10, pseudo_inputs=9), "each of the 10 classes"),
        (lambda: Categorical(20, 3), r"prior\.categories=3, latent_dim=20"),
        (lambda: Categorical(20, 1), r"prior\.categories=1"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_supports_tell_discrete_from_continuous():
    assert Bernoulli(4)().support.is_discrete
    assert Categorical(4, 2)().support.is_discrete
    assert not StandardNormal(4)().support.is_discrete
    assert not Mixture(4)().support.is_discrete
