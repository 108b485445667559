"""The examples in docstrings do what they say."""

import doctest
from importlib import import_module

import pytest
import torch

MODULES = ("models.vae", "draws", "objectives.elbo", "likelihoods.bits", "priors")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    torch.manual_seed(0)
    found = doctest.testmod(import_module(f"vae_exp.{name}"))
    assert found.attempted
    assert not found.failed
