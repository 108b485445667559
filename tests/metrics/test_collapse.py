"""The line on unused latents: when it is there, and whether its ways out cure the cause."""

import html
import logging
import math

import pytest
from helpers.runs import SMALL, composed, evaluated

from vae_exp.metrics.collapse import unused_latents
from vae_exp.runs.folder import load_config

PIXELS = 64


def line(*overrides, steps=5000, **numbers):
    return unused_latents(composed(*SMALL, *overrides), {f"test/{name}": x for name, x in numbers.items()}, steps)


@pytest.mark.parametrize(
    ("numbers", "is_unused"),
    [
        ({"kl": 0.01}, True),
        ({"kl": 3.0}, False),
        ({"kl": 21.5, "active_units": 0.0}, False),  # narrow posteriors around means that vary little
        ({"kl": 0.01, "active_units": 3.0}, True),
        ({"kl": 3.0, "mutual_information": 0.02}, True),  # all posteriors alike, and not the prior
        ({"kl": 3.0, "mutual_information": 2.5}, False),
        ({"kl": 3.0, "mutual_information": None}, False),  # of m2
        ({"recon": 10.0}, False),  # an autoencoder
    ],
)
def test_latents_are_unused_if_they_say_nothing_of_the_image(numbers, is_unused):
    assert (line("likelihood=gaussian_shared", **numbers) is not None) == is_unused


def test_the_line_is_of_the_test_split_if_there_is_one():
    cfg = composed(*SMALL)
    assert unused_latents(cfg, {"val/kl": 0.01, "train/kl": 5.0}, 5000) is not None
    assert unused_latents(cfg, {"val/kl": 0.01, "test/kl": 5.0}, 5000) is None


def recon(error, scale):
    """-log p(x | z) under a normal, nats per image, of errors of this size."""
    return PIXELS * (error**2 / (2 * scale**2) + math.log(scale * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize(
    ("overrides", "numbers", "says"),
    [
        (("likelihood=sse",), {"recon": recon(0.11, 0.5**0.5)}, "likelihood.scale=0.707 is more than the errors"),
        (("likelihood=sse", "likelihood.scale=0.1"), {"recon": recon(0.11, 0.1)}, None),  # not what the cause is
        (("likelihood=sse", "likelihood.scale=0.1"), {"recon": recon(0.09, 0.1)}, "likelihood=gaussian_shared"),
        # Of a Laplace the errors are absolute: log 2b + |e| / b.
        (("likelihood=laplace",), {"recon": PIXELS * (math.log(0.2) + 0.9)}, "likelihood.scale=0.1 is more than"),
        (("likelihood=laplace",), {"recon": PIXELS * (math.log(0.2) + 1.1)}, None),
        (("likelihood=continuous_bernoulli",), {"recon": -1.0}, "likelihood=gaussian_shared"),
        (("likelihood=bce", "likelihood.allow_grey=true"), {"recon": 20.0}, "likelihood=gaussian_shared"),
        (("likelihood=bce", "data.binarize=dynamic"), {"recon": 20.0}, None),
        (("likelihood=gaussian_shared", "model=beta_vae", "objective.beta=8"), {}, "objective.beta=8 weighs the KL"),
        (("likelihood=gaussian_shared", "objective=beta_elbo", "objective.beta=0.5"), {}, None),
        (
            (
                "likelihood=gaussian_shared",
                "objective=beta_elbo",
                "+schedule@objective.beta=linear",
                "objective.beta.end=9",
            ),
            {},
            "objective.beta=9 weighs the KL",
        ),
        (("likelihood=gaussian_shared", "objective=beta_tcvae"), {}, "objective.beta=6 weighs the KL"),
        (("likelihood=gaussian_shared", "objective=capacity"), {}, "objective.capacity"),
    ],
)
def test_ways_out_are_of_the_cause_at_hand(overrides, numbers, says):
    text = line(*overrides, kl=0.01, **numbers)
    assert (says or "objective=free_bits") in text
    assert ("objective=free_bits" in text) == (says is None)  # the last resort
    assert "\n" not in text
    few = line(*overrides, steps=30, kl=0.01, **numbers)
    assert "30 training steps are few" in few
    assert says is None or says in few


@pytest.mark.parametrize("is_used", [False, True])
def test_training_its_page_and_evaluate_say_it(run, caplog, is_used):
    """With a beta of 100 the posterior is the prior within a few steps; without a KL in the loss it never is."""
    caplog.set_level(logging.INFO, logger="vae_exp")
    beta = f"objective.beta={0 if is_used else 100}"
    quick = ("optimizer.lr=0.05", "trainer.max_epochs=40", "likelihood=gaussian_shared", "report=true")
    folder, metrics = run("objective=beta_elbo", beta, *quick)
    assert (metrics["test/kl"] > 0.5) == is_used
    expected = None if is_used else unused_latents(load_config(folder), metrics, 120)
    assert is_used or "objective.beta=100 weighs the KL" in expected
    assert said(caplog) == expected
    evaluated(folder, "metrics=[elbo]")
    assert (said(caplog) is None) == is_used
    page = html.unescape((folder / "report.html").read_text())
    assert "the latents are unused" not in page if is_used else expected in page


def said(caplog):
    """The line among what was logged since the last call."""
    lines = [line for line in caplog.messages if "latents are unused" in line]
    caplog.clear()
    assert len(lines) < 2
    return lines[0] if lines else None
