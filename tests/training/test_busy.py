"""What makes a run slow on some machines."""

import os

import pytest
import torch

import vae_exp
from vae_exp.training.trainer import _has_bf16


def test_threads_that_wait_sleep_unless_the_user_says_otherwise():
    assert vae_exp.__version__
    assert os.environ["OMP_WAIT_POLICY"]


@pytest.mark.parametrize(
    ("able", "has"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, True),  # torch does not tell
    ],
)
def test_a_cpu_that_is_slow_with_bf16_is_known(monkeypatch, able, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert _has_bf16() == has
