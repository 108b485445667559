"""What latents are drawn from: densities fitted to codes of which the distribution is known."""

import math

import pytest
import torch
from helpers.cases import slow_but
from helpers.in_memory import made
from helpers.linear import Affine, features, full_normal, make
from helpers.runs import evaluated, generated
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from vae_exp import plots, samplers
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.data import Split
from vae_exp.objectives import ELBO
from vae_exp.runs.trained import restore
from vae_exp.samplers import fit_flow, fit_mixture, sampler

FACTORS = torch.tensor([[[1.0, 0.0], [0.5, 0.3]], [[0.2, 0.0], [-0.4, 0.6]]])
MEANS = torch.tensor([[3.0, 0.0], [-1.0, 2.0]])


def mixture(weight=0.3):
    return MixtureSameFamily(
        Categorical(torch.tensor([weight, 1 - weight])), MultivariateNormal(MEANS, scale_tril=FACTORS)
    )


class Nobody:
    """Of a run, what a fit reads."""

    seed = 0

    def bar(self, *_):
        from tqdm.auto import tqdm

        return tqdm(disable=True)


def test_a_known_mixture_is_recovered(monkeypatch):
    monkeypatch.setattr(samplers, "COMPONENTS", 2)
    torch.manual_seed(0)
    truth, num = mixture(), 20000
    p = fit_mixture(truth.sample((num,)), None, Nobody())(None)
    order = p.log_weights.argsort()
    weight = p.log_weights.exp()[order]
    assert abs(weight[0] - 0.3) < 4 * math.sqrt(0.3 * 0.7 / num)
    assert (p.components.loc[order] - MEANS).abs().max() < 4 * 1.0 / math.sqrt(0.3 * num)
    truth_cov = FACTORS @ FACTORS.mT
    assert (p.components.covariance_matrix[order] - truth_cov).abs().max() < 4 * math.sqrt(2 / (0.3 * num))
    z = truth.sample((num,))
    gap = truth.log_prob(z) - p.log_prob(z)
    # 11 parameters cost 11 / 2N nats on average.
    assert -4 * gap.std() / math.sqrt(num) < gap.mean() < 11 / num + 4 * gap.std() / math.sqrt(num)


def test_a_mixture_is_fitted_within_each_class(monkeypatch):
    monkeypatch.setattr(samplers, "COMPONENTS", 1)
    torch.manual_seed(0)
    y = torch.arange(3000) % 2
    z = MultivariateNormal(MEANS, scale_tril=FACTORS).sample((3000,))[torch.arange(3000), y]
    density = fit_mixture(z, nn.functional.one_hot(y, 2).float(), Nobody())
    c = nn.functional.one_hot(torch.tensor([1, 0, 1]), 2).float()
    p = density(c)
    assert p.batch_shape == (3,)
    for k, label in enumerate([1, 0, 1]):
        own = z[y == label].double()
        exact = MultivariateNormal(own.mean(0), own.T.cov(correction=0) + 1e-6 * torch.eye(2))
        points = torch.randn(5, 3, 2)
        assert torch.allclose(p.log_prob(points)[:, k].double(), exact.log_prob(points[:, k].double()), rtol=1e-4)


def test_small_classes_get_fewer_components_and_empty_ones_are_refused():
    torch.manual_seed(0)
    z, y = torch.randn(30, 2), torch.tensor([0] * 22 + [1] * 8)
    p = fit_mixture(z, nn.functional.one_hot(y, 2).float(), Nobody())(torch.eye(2))
    assert p.log_weights.shape == (2, 2)  # 8 images are 2 times 2 D
    with pytest.raises(NoMeaningError, match="0 training images"):
        fit_mixture(z, nn.functional.one_hot(y, 3).float(), Nobody())


@pytest.mark.slow
@pytest.mark.parametrize("dims", slow_but([1], [1, 2]))
def test_a_flow_learns_a_density(dims, monkeypatch):
    monkeypatch.setattr(samplers, "STEPS", 250)
    torch.manual_seed(0)
    truth = mixture(0.5)
    z, held_out = truth.sample((5000,))[:, -dims:], truth.sample((5000,))[:, -dims:]
    mean, std = z.mean(0), z.std(0)
    p = fit_flow((z - mean) / std, None, Nobody())(None)
    found = p.log_prob((held_out - mean) / std) - std.log().sum()
    if dims == 2:
        gap = (truth.log_prob(held_out) - found).mean()
    else:
        normals = torch.distributions.Normal(MEANS[:, 1], (FACTORS @ FACTORS.mT)[:, 1, 1].sqrt())
        exact = MixtureSameFamily(Categorical(torch.ones(2)), normals)
        gap = (exact.log_prob(held_out[:, 0]) - found).mean()
    assert (
        -0.03 < gap < (0.05 if dims == 1 else 0.15)
    )  # in two, one component is a fifth as wide as a bin of the spline
    if dims == 2:  # better than one normal can
        assert found.mean() > MultivariateNormal(mean, z.T.cov()).log_prob(held_out).mean() + 0.2


@pytest.mark.slow
def test_a_flow_follows_the_label(monkeypatch):
    monkeypatch.setattr(samplers, "STEPS", 200)
    torch.manual_seed(0)
    y = torch.arange(4000) % 2
    z = torch.randn(4000, 2) * 0.5 + (2.0 * y[:, None] - 1)
    density = fit_flow(z, nn.functional.one_hot(y, 2).float(), Nobody())
    for label in range(2):
        c = torch.eye(2)[label].expand(2000, -1)
        s = density(c).sample()
        assert s.shape == (2000, 2)
        assert (s.mean(0) - (2 * label - 1)).abs().max() < 0.1
        assert (s.std(0) - 0.5).abs().max() < 0.1


class Moved(nn.Module):
    """An encoder: q(z | x) = N(A x + 2, 0.3^2 I), A the first two pixels times 0.5."""

    def forward(self, x, c=None):
        mean = 0.5 * x.flatten(1).double()[:, :2] + 2
        rest = features(torch.zeros(2).double(), 0.3 * torch.eye(2).double())[:, 2:]
        return torch.cat([mean, rest.expand(len(x), -1)], dim=1)


@pytest.mark.parametrize("kind", slow_but(["gmm"], ["gmm", "flow"]))
def test_the_aggregate_posterior_of_a_linear_model_is_fitted(tmp_path, kind, monkeypatch):
    """x ~ N(0, I), so q(z) = N(2, 0.5^2 + 0.3^2): its negative entropy, and the prior's log density, are known."""
    monkeypatch.setattr(samplers, "STEPS", 150)
    torch.manual_seed(0)
    sizes = {"train": 4000, "val": 4000, "test": 10}
    splits = {name: Split(torch.randn(n, 1, 1, 4), torch.full((n,), -1)) for name, n in sizes.items()}
    trained = made(make(Moved(), Affine(2, 4), ELBO(), posterior=full_normal()), splits, tmp_path)
    draw = sampler(trained, kind)
    var = 0.5**2 + 0.3**2
    entropy = 1 + math.log(2 * math.pi * var)
    assert abs(draw.numbers["sampler_log_density"] + entropy) < 4 / math.sqrt(4000) + 0.03  # of log p: variance 1
    prior = -math.log(2 * math.pi) - (var + 2**2)
    spread = math.sqrt(2 * (2 * (0.5 * var) ** 2 + 4 * var))
    assert abs(draw.numbers["prior_log_density"] - prior) < 4 * spread / math.sqrt(4000)
    z = draw(20000)
    assert (z.mean(0) - 2).abs().max() < 4 * math.sqrt(var * (1 / 4000 + 1 / 20000)) + 0.02
    assert (z.std(0) - math.sqrt(var)).abs().max() < 0.03
    torch.manual_seed(5)  # what came before is of no account
    assert sampler(trained, kind).numbers == draw.numbers


RUNS = {
    "vae": (),
    "flow": ("posterior=flow", "prior=mixture"),
    "hvae": ("model=hvae", "model.upper_dims=[2]"),
    "ae": ("model=ae",),
    "m2": ("model=m2", "data.labelled=8"),
    "cvae": ("model=cvae", "prior=flow"),
}


@pytest.mark.parametrize("name", slow_but(["ae", "cvae"], RUNS))
def test_every_model_is_sampled(run, drawn, name, monkeypatch):
    monkeypatch.setattr(samplers, "STEPS", 20)
    folder, _ = run(*RUNS[name], "trainer.max_epochs=1")
    path = folder / "images" / "samples" / "samples.png"
    for kind in ("gmm", "flow"):
        numbers = generated(folder, "samples", f"sampler={kind}", "num_images=12")
        assert numbers == generated(folder, "samples", f"sampler={kind}", "num_images=12")
        assert set(numbers) == {"sampler_log_density"} | (set() if name == "ae" else {"prior_log_density"})
        assert all(math.isfinite(value) for value in numbers.values())
        path.unlink()
    if name == "ae":
        with pytest.raises(NoMeaningError, match="sampler=gmm"):
            generated(folder, "samples")
        with pytest.raises(NoMeaningError, match=r"quality\.sampler=gmm"):
            evaluated(folder, "metrics=[quality]")
    else:
        assert generated(folder, "samples") == {}
        assert path.exists()


def test_what_cannot_be_is_refused(run, drawn):
    folder, _ = run("posterior=bernoulli", "posterior.relaxed=true", "trainer.max_epochs=1")
    generated(folder, "samples", "sampler=prior")
    with pytest.raises(NoMeaningError, match="discrete latents"):
        generated(folder, "samples", "sampler=gmm")
    with pytest.raises(ConfigError, match="sampler=maf: choose one of prior, gmm, flow"):
        generated(folder, "samples", "sampler=maf")


class At(samplers.Sampler):
    """Every latent is the same one."""

    def __call__(self, num, c=None):
        return torch.full((num, 3), 0.7)


FOURTH_MOMENTS = {
    "likelihood=bce data.binarize=static": lambda px: px.variance * (1 - 3 * px.variance),
    "likelihood=gaussian_shared likelihood.init_scale=0.3": lambda px: 3 * px.variance**2,
}


@pytest.mark.parametrize("likelihood", FOURTH_MOMENTS)
def test_sampled_pixels_have_the_mean_and_the_variance_of_the_likelihood(run, monkeypatch, likelihood):
    """All images of one z: what varies among them is the likelihood's."""
    folder, _ = run(*likelihood.split(), "trainer.max_epochs=1")
    drawn = []
    monkeypatch.setattr(samplers, "sampler", lambda *_: At(lambda c: None, "one z", {}))
    monkeypatch.setattr(plots, "grid", lambda images, *_: drawn.append(images))
    for pixels in ("mean", "sample"):
        generated(folder, "samples", f"pixels={pixels}", "num_images=4000")
    means, samples = drawn
    trained = restore(folder, accelerator="cpu")
    px = trained.model.decode(torch.full((1, 3), 0.7))
    assert torch.allclose(means, px.mean.expand(4000, -1, -1, -1), atol=1e-6)
    variance, fourth = px.variance[0], FOURTH_MOMENTS[likelihood](px)[0]
    assert ((samples.mean(0) - px.mean[0]).abs() < 5 * (variance / 4000).sqrt()).all()
    assert (
        (samples.var(0) - variance).abs() < 5 * ((fourth - variance**2).clamp(min=1e-12) / 4000).sqrt() + 1e-3
    ).all()
    with pytest.raises(ConfigError, match="pixels=bits: choose mean or sample"):
        generated(folder, "samples", "pixels=bits")
    with pytest.raises(ConfigError, match="num_images=0: at least 1 is needed"):
        generated(folder, "samples", "num_images=0")
