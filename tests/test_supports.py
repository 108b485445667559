"""Sets of pixel values, and the one that a likelihood scores."""

import pytest
import torch
from helpers.runs import SMALL, composed
from torch import nn
from torch.distributions import Distribution, Independent, Normal, Poisson, constraints

from vae_exp.config import ConfigError
from vae_exp.parts import Likelihood, as_part
from vae_exp.runs.build import bound, build
from vae_exp.supports import levels, support_of


def test_levels_are_the_256_and_nothing_between_or_beside():
    k = torch.arange(256)
    for dtype in (torch.float32, torch.float64):
        assert levels.check(k.to(dtype) / 255).all()
        assert levels.check(k.to(dtype) * (1 / 255)).all()
        assert not levels.check((k.to(dtype) + 0.5) / 255).any()
    assert not levels.check(torch.tensor([-1 / 255, 256 / 255, float("nan"), float("inf")])).any()


class Counts(nn.Module):
    """A likelihood of a user's: a plain module, which says nothing beside its distribution."""

    support = "real"  # the old way to say it, which nothing reads

    def forward(self, params):
        return Independent(Poisson(params.exp()), 3)


class Silent(nn.Module):
    """Its distribution does not say its support."""

    def forward(self, params):
        class Flat(Distribution):
            arg_constraints = {}  # noqa: RUF012

            def log_prob(self, value):
                return torch.zeros(self.batch_shape)

        return Flat(params.shape[:-3], params.shape[-3:], validate_args=False)


class Wide(nn.Module):
    """Reads three numbers a pixel and has a parameter of its own."""

    params_per_pixel = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 4, 5))

    def forward(self, params):
        return Independent(Normal(sum(params.chunk(3, dim=-3)), self.scale), 3)


def test_the_support_is_that_of_the_distribution():
    assert support_of(as_part(Counts(), Likelihood), (1, 2, 2)) is constraints.nonnegative_integer
    assert support_of(Wide(), (2, 4, 5)) is constraints.real
    with pytest.raises(ValueError, match="Flat does not say which values it scores"):
        support_of(as_part(Silent(), Likelihood), (1, 2, 2))


def run(likelihood, *options):
    cfg = composed(*SMALL, *options)
    cfg.likelihood = {"_target_": f"{__name__}.{likelihood}"}
    return build(cfg)


def test_a_likelihood_of_counts_scores_bits_and_refuses_grey():
    model, data = run("Counts", "data.binarize=dynamic", "likelihood=bce")
    assert bound(model, data) == {
        "of": "log p(x)",
        "representation": "bits, dynamic",
        "kind": "mass",
        "is_bound": True,
        "units": "nats per image",
    }
    with pytest.raises(ConfigError, match=r"Counts scores .*Integer.*, but the data are 256 levels\.\nWays out: "):
        run("Counts")


def test_a_likelihood_that_does_not_say_its_support_is_refused():
    with pytest.raises(ConfigError, match=r"Flat does not say .* torch\.distributions\.constraints"):
        run("Silent")
