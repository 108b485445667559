"""Initial weights: the variances that the papers derive, and what they leave as it is."""

from math import sqrt

import pytest
import torch
from helpers.runs import SMALL, composed
from torch import nn

from vae_exp.config import ConfigError
from vae_exp.init import Glorot, He, Normal, fans
from vae_exp.runs.build import build

NETS = ("encoder=conv", "decoder=conv", "data.image_shape=[1,16,16]", "decoder.hidden=64")
WIDE = tuple(word for word in SMALL if not word.startswith(("encoder.hidden", "decoder.hidden", "encoder.out")))


def made(*words, seed=0):
    torch.manual_seed(seed)
    return build(composed(*WIDE, *words))[0]


def weights(model):
    return {name: each for name, each in model.named_parameters() if name.endswith("weight")}


def test_default_draws_nothing():
    torch.manual_seed(0)
    cfg = composed(*WIDE)
    assert cfg.init == {}
    build(cfg)
    after = torch.rand(3)
    torch.manual_seed(0)
    cfg.init = None
    build(cfg)
    assert torch.equal(after, torch.rand(3))
    layer = made().encoder.layers[0]
    assert layer.weight.abs().max() <= 1 / sqrt(64)
    assert layer.bias.any()


@pytest.mark.parametrize("words", [(), NETS], ids=["mlp", "conv"])
@pytest.mark.parametrize("std", [0.01, 0.1])
def test_normal_has_its_deviation_in_every_network_and_biases_are_0(std, words):
    model = made("init=normal", f"init.std={std}", *words)
    each = torch.cat([weight.flatten() for weight in weights(model).values()])
    assert each.mean().item() == pytest.approx(0, abs=5 * std / sqrt(len(each)))
    assert each.std().item() == pytest.approx(std, rel=5 / sqrt(2 * len(each)))
    assert not any(each.any() for name, each in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(30, 20),
        nn.Conv2d(8, 6, kernel_size=3, padding=1),
        nn.Conv2d(8, 6, kernel_size=4, stride=2, padding=1),
        nn.ConvTranspose2d(8, 6, kernel_size=4, stride=2, padding=1),
    ],
    ids=["linear", "conv", "conv of stride 2", "transposed"],
)
def test_fans_are_the_numbers_that_one_output_adds_up_and_one_input_goes_into(layer):
    """Counted far from the border, with all weights 1; the outputs of an input differ with its place, so their mean."""
    nn.init.ones_(layer.weight)
    shape = (30,) if isinstance(layer, nn.Linear) else (8, 12, 12)
    x = torch.ones(1, *shape, requires_grad=True)
    y = layer(x) - layer(torch.zeros(1, *shape))
    (reach,) = torch.autograd.grad(y.sum(), x)
    fan_in, fan_out = fans(layer)
    for counted, fan in ((y, fan_in), (reach, fan_out)):
        third = counted.shape[-1] // 3
        inside = counted[..., third:-third, third:-third] if len(shape) == 3 else counted
        assert inside.mean().item() == pytest.approx(fan, rel=1e-5)


def test_glorot_and_he_have_the_variances_of_their_papers():
    for init, variance in ((Glorot(), 2 / 300), (He(), 2 / 100)):
        layer = nn.Linear(100, 200)
        init(layer)
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
        assert not layer.bias.any()
    assert layer.weight.abs().max() > sqrt(6 / 100)  # He's is normal
    Glorot()(layer)
    assert layer.weight.abs().max() <= sqrt(6 / 300)


@pytest.mark.parametrize("conv", [False, True])
def test_he_keeps_the_squares_of_a_deep_relu_network(conv):
    torch.manual_seed(0)
    one = (lambda: nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular")) if conv else (lambda: nn.Linear(256, 256))
    layers = nn.Sequential(*(layer for _ in range(10) for layer in (nn.ReLU(), one())))
    He()(layers)
    x = torch.randn(64, *((32, 8, 8) if conv else (256,)))
    assert layers(x).square().mean().item() == pytest.approx(1, rel=0.5)  # torch's default: 6^-10


def test_what_starts_from_zeros_and_what_is_no_network_stays():
    words = ("posterior=full_normal", "prior=mixture", "likelihood=gaussian_shared")
    plain, model = made(*words), made(*words, "init=he")
    assert not model.posterior.below.weight.any()
    for name, each in plain.named_parameters():
        if name.startswith(("prior", "likelihood")):
            assert torch.equal(each, dict(model.named_parameters())[name]), name


def test_what_cannot_be_is_refused(run):
    with pytest.raises(ValueError, match=r"init\.std=0: a number above 0"):
        Normal(0)
    first, _ = run("trainer.max_epochs=1", folder="first")
    with pytest.raises(ConfigError, match=r"init\._target_=vae_exp\.init\.He: .* init=default"):
        run(f"init_from={first}", "init=he", folder="second")
    run(f"init_from={first}", "init_from_parts=[encoder]", "init=he", "trainer.max_epochs=1", folder="third")
