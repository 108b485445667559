"""Encoders and decoders: shapes for any image, whose context goes where, and the options of each."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.runs import composed
from scipy.special import logit
from torch import nn

from vae_exp import decoders, encoders
from vae_exp.runs.build import build, make

B, D, CONTEXT, FEATURES = 3, 2, 4, 6
SHAPES = [(1, 28, 28), (1, 28, 20), (1, 8, 8), (3, 32, 32), (1, 27, 13), (3, 9, 13)]
SIZES = {"MLP": {"hidden": [7]}, "Conv": {"channels": [4, 5]}, "ResNet": {"channels": [4, 5], "blocks": 2}}
PARTS = {"encoder": encoders, "decoder": decoders}

networks = pytest.mark.parametrize("name", SIZES)
parts = pytest.mark.parametrize("part", PARTS)
contexts = pytest.mark.parametrize("context_dim", [0, CONTEXT])
normalizations = pytest.mark.parametrize("normalization", ["none", "batch", "layer"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_encoder(name, image_shape, context_dim=0, **options):
    defaults = {"out_features": FEATURES, "activation": "Tanh", **SIZES[name]}
    return getattr(encoders, name)(image_shape, context_dim, **defaults | options)


def make_decoder(name, image_shape, context_dim=0, p=1, **options):
    defaults = {"activation": "Tanh", **SIZES[name]}
    return getattr(decoders, name)(D, image_shape, context_dim, p, **defaults | options)


def make_context(context_dim, n=B):
    return torch.randn(n, context_dim) if context_dim else None


def make_case(part, name, image_shape=(2, 8, 8), context_dim=CONTEXT, n=B, **options):
    """A network and n inputs for it."""
    if part == "encoder":
        network, a = make_encoder(name, image_shape, context_dim, **options), torch.rand(n, *image_shape)
    else:
        network, a = make_decoder(name, image_shape, context_dim, **options), torch.randn(n, D)
    return network, a, make_context(context_dim, n)


def from_yaml(part, option, *overrides):
    """A part as `conf/` makes it, for grey images of 5 x 3 with four labels."""
    return make(composed("data=fake", "data.image_shape=[1,5,3]", f"{part}={option}", *overrides), part)


# --- Shapes -----------------------------------------------------------------------------------------------------


@networks
@contexts
@pytest.mark.parametrize("image_shape", SHAPES)
def test_encoder_shapes(name, context_dim, image_shape):
    encoder = make_encoder(name, image_shape, context_dim)
    assert encoder(torch.rand(B, *image_shape), make_context(context_dim)).shape == (B, FEATURES)


@networks
@contexts
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_decoder_shapes(name, context_dim, p, image_shape):
    channels, height, width = image_shape
    params = make_decoder(name, image_shape, context_dim, p)(torch.randn(B, D), make_context(context_dim))
    assert params.shape == (B, p * channels, height, width)


@networks
def test_default_sizes_fit_mnist(name):
    x = torch.rand(B, 1, 28, 28)
    assert getattr(encoders, name)(x.shape[1:])(x).dim() == 2
    assert getattr(decoders, name)(D, x.shape[1:])(torch.randn(B, D)).shape == x.shape


@pytest.mark.parametrize("name", ["Conv", "ResNet"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 9, 13, 15])
def test_any_side_survives_any_number_of_halvings(name, depth, side):
    shape, channels = (1, side, 8), [3] * depth
    assert make_encoder(name, shape, channels=channels)(torch.rand(B, *shape)).shape == (B, FEATURES)
    assert make_decoder(name, shape, channels=channels)(torch.randn(B, D)).shape == (B, *shape)


@pytest.mark.parametrize("image_shape", [(1, 3, 28), (1, 28, 3)])
def test_an_image_too_small_names_the_key(image_shape):
    with pytest.raises(ValueError, match=r"encoder\.channels"):
        make_encoder("Conv", image_shape)
    with pytest.raises(ValueError, match=r"decoder\.channels"):
        make_decoder("Conv", image_shape)


@pytest.mark.parametrize(("side", "most"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5)])
def test_a_resnet_halves_until_one_pixel_is_left(side, most):
    """Rounded up, no side vanishes: 5, 3, 2, 1 are four stages, and a fifth would be of the same pixel."""
    shape = (1, side, 1)
    make_encoder("ResNet", shape, channels=[2] * most)(torch.rand(B, *shape))
    assert make_decoder("ResNet", shape, channels=[2] * most)(torch.randn(B, D)).shape == (B, *shape)
    for build_part in (make_encoder, make_decoder):
        with pytest.raises(ValueError, match=r"coder\.channels=.* too often"):
            build_part("ResNet", shape, channels=[2] * (most + 1))


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 9, 13), (1, 28, 20)])
def test_the_stages_of_a_resnet_decoder_have_the_sizes_of_the_encoders(image_shape):
    def sizes(network, *given):
        """Of the maps that each block gives."""
        found = []
        for layer in network.layers:
            if isinstance(layer, nn.Sequential):
                layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
        network(*given)
        return found

    encoder = make_encoder("ResNet", image_shape, channels=[3, 4, 5])
    decoder = make_decoder("ResNet", image_shape, channels=[5, 4, 3])
    down = sizes(encoder, torch.rand(B, *image_shape))
    assert len(down) == 6
    assert down[0] == (3, *image_shape[1:])
    assert sizes(decoder, torch.randn(B, D)) == down[::-1]


# --- What an output depends on ----------------------------------------------------------------------------------


@networks
@parts
@pytest.mark.parametrize("normalization", ["none", "layer"])
def test_an_output_depends_on_all_of_its_own_input_and_context_and_on_no_other(name, part, normalization):
    network, a, c = make_case(part, name, normalization=normalization)
    a, c = a.requires_grad_(), c.requires_grad_()
    out = network(a, c)[1]
    (out * torch.randn(out.shape)).sum().backward()
    for gradient in (a.grad, c.grad):
        assert (gradient[1] != 0).all()
        assert (gradient[[0, 2]] == 0).all()


@networks
@parts
@normalizations
@pytest.mark.parametrize("activation", ["ReLU", "SiLU", "PReLU"])
def test_the_first_gradient_reaches_every_parameter(name, part, normalization, activation):
    network, a, c = make_case(part, name, n=16, normalization=normalization, activation=activation)
    out = network(a, c)
    (out * torch.randn(out.shape)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        # A bias that a batch norm takes off again has a gradient of zero, up to rounding.
        assert (parameter.grad != 0).any() or (normalization == "batch" and key.endswith("bias")), key


@networks
@parts
@normalizations
def test_another_context_is_another_output(name, part, normalization):
    network, a, c = make_case(part, name, n=1, normalization=normalization)
    network.eval()
    first, second = network(a, c), network(a, c + 1)
    assert ((first - second).abs() > 1e-5).float().mean() > 0.9


# --- Normalisation ----------------------------------------------------------------------------------------------

KINDS = {
    "none": {"MLP": (), "Conv": (), "ResNet": ()},
    "batch": {"MLP": nn.BatchNorm1d, "Conv": (nn.BatchNorm1d, nn.BatchNorm2d), "ResNet": nn.BatchNorm2d},
    "layer": {"MLP": nn.LayerNorm, "Conv": (nn.LayerNorm, nn.GroupNorm), "ResNet": nn.GroupNorm},
}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@networks
@parts
@normalizations
def test_each_activation_but_the_last_follows_a_normalisation(name, part, normalization):
    network, _, _ = make_case(part, name, normalization=normalization)
    flat = [module for module in network.modules() if not list(module.children())]
    activations = sum(isinstance(module, nn.Tanh) for module in flat) - (part == "encoder")
    norms = [module for module in flat if isinstance(module, NORMS)]
    assert len(norms) == (activations if normalization != "none" else 0)
    assert all(isinstance(module, KINDS[normalization][name]) for module in norms)
    for before, after in pairwise(flat):
        assert not isinstance(before, NORMS) or isinstance(after, nn.Tanh)
    last = [module for module in flat if list(module.parameters())][-1]
    assert isinstance(last, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)


@networks
@parts
@normalizations
def test_each_image_is_by_itself_what_it_is_in_a_batch(name, part, normalization):
    network, a, c = make_case(part, name, n=5, normalization=normalization)
    for _ in range(3):
        network(a, c)  # running means that differ from those of this batch
    together = network.eval()(a, c)
    alone = torch.cat([network(a[k : k + 1], c[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


@networks
@parts
@normalizations
def test_batch_alone_couples_the_images_of_a_training_batch(name, part, normalization):
    network, a, c = make_case(part, name, n=5, normalization=normalization)
    difference = (network(a, c)[:2] - network(a[:2], c[:2])).abs().max()
    assert (difference > 1e-3) == (normalization == "batch")


@parts
@networks
def test_layer_is_numpys_standardisation_of_each_image(part, name):
    network, _, _ = make_case(part, name, (1, 10, 4), normalization="layer")
    kind, shape = (nn.LayerNorm, (7,)) if name == "MLP" else (nn.GroupNorm, (4, 5, 2))
    norm = next(module for module in network.modules() if isinstance(module, kind))
    h = 2 + 3 * torch.randn(B, *shape)
    flat = h.flatten(1).numpy().astype(float)
    expected = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(h).detach().flatten(1).numpy(), expected, atol=1e-5)


# --- Networks as they are written down --------------------------------------------------------------------------


def same(network, written, *given):
    """Asserts that a network and one made from plain layers are one: keys, weights and output, to the bit."""
    state, expected = network.layers.state_dict(), written.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert torch.equal(network(*given).flatten(1), written(*given).flatten(1))


def test_the_mlp_encoder_of_the_default_yaml_is_its_layers():
    torch.manual_seed(3)
    network = build(composed("data=mnist"))[0].encoder
    torch.manual_seed(3)
    written = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU())
    x = torch.rand(B, 1, 28, 28)
    assert list(network.state_dict()) == [f"layers.{k}.{kind}" for k in (0, 2) for kind in ("weight", "bias")]
    written.register_forward_pre_hook(lambda _, given: given[0].flatten(1))
    same(network, written, x)


def test_the_mlp_decoder_of_the_default_yaml_is_its_layers():
    torch.manual_seed(3)
    network = from_yaml("decoder", "mlp")
    torch.manual_seed(3)
    written = nn.Sequential(
        nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 15)
    )  # fmt: skip
    same(network, written, torch.randn(B, 20))


def test_the_conv_encoder_is_its_layers():
    torch.manual_seed(3)
    network = make_encoder("Conv", (1, 9, 13))
    torch.manual_seed(3)
    written = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.Tanh(), nn.Conv2d(4, 5, 4, 2, 1), nn.Tanh(),
        nn.Flatten(), nn.Linear(5 * 2 * 3, FEATURES), nn.Tanh(),
    )  # fmt: skip
    same(network, written, torch.rand(B, 1, 9, 13))


def test_the_conv_decoder_is_its_layers():
    torch.manual_seed(3)
    network = make_decoder("Conv", (1, 9, 13), hidden=7)
    torch.manual_seed(3)
    written = nn.Sequential(
        nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 4 * 2 * 3), nn.Unflatten(1, (4, 2, 3)),
        nn.Tanh(), nn.ConvTranspose2d(4, 5, 4, 2, 1, output_padding=(0, 0)),
        nn.Tanh(), nn.ConvTranspose2d(5, 1, 4, 2, 1, output_padding=(1, 1)),
    )  # fmt: skip
    same(network, written, torch.randn(B, D))


def test_a_residual_block_adds_its_branch():
    encoder = make_encoder("ResNet", (1, 8, 8))
    stem, block = encoder.layers[:2]
    h = stem(torch.rand(B, 1, 8, 8))
    _, first, _, last = block
    torch.testing.assert_close(block(h), h + last(first(h.tanh()).tanh()))


@parts
def test_a_deep_resnet_starts_as_large_as_a_shallow_one(part):
    """Of 64 blocks a stage the variances of the branches add up to that of one, within the chance of the weights."""
    spread = {}
    for blocks in (1, 64):
        options = {"blocks": blocks, "normalization": "layer", "channels": [16], "activation": "ReLU"}
        network, a, _ = make_case(part, "ResNet", (1, 8, 8), 0, n=8, **options)
        found = []
        stages = [layer for layer in network.layers if isinstance(layer, nn.Sequential)]
        stages[0].register_forward_pre_hook(lambda _, given, found=found: found.append(given[0]))
        stages[-1].register_forward_hook(lambda _, __, out, found=found: found.append(out))
        network(a)
        spread[blocks] = float((found[1] - found[0]).detach().var())
    assert spread[1] / 4 < spread[64] < 4 * spread[1]


# --- Linear -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_a_linear_encoder_is_a_matrix_product(model):
    encoder = from_yaml("encoder", "linear", f"model={model}", "encoder.out_features=9")
    (weight, bias), context_dim = encoder.parameters(), CONTEXT if model == "cvae" else 0
    assert weight.shape == (9, 15 + context_dim)
    x, c = torch.rand(B, 1, 5, 3), make_context(context_dim)
    given = np.concatenate([x.numpy().reshape(B, 15), *([] if c is None else [c.numpy()])], axis=1)
    expected = given @ weight.detach().numpy().T + bias.detach().numpy()
    np.testing.assert_allclose(encoder(x, c).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_a_linear_decoder_is_a_matrix_product(model):
    decoder = from_yaml("decoder", "linear", f"model={model}", "latent_dim=4", "likelihood=gaussian")
    (weight, bias), context_dim = decoder.parameters(), CONTEXT if model == "cvae" else 0
    assert weight.shape == (2 * 15, 4 + context_dim)
    z, c = torch.randn(B, 4), make_context(context_dim)
    given = np.concatenate([z.numpy(), *([] if c is None else [c.numpy()])], axis=1)
    expected = (given @ weight.detach().numpy().T + bias.detach().numpy()).reshape(B, 2, 5, 3)
    np.testing.assert_allclose(decoder(z, c).detach().numpy(), expected, atol=1e-5)


@parts
def test_linear_stays_linear_with_hidden_layers(part):
    """`encoder=linear encoder.hidden=[3]` is a map of rank 3."""
    network = from_yaml(part, "linear", f"{part}.hidden=[3]").double()
    a = torch.randn(40, *((1, 5, 3) if part == "encoder" else (20,))).double()
    outputs = network(a).flatten(1) - network(torch.zeros_like(a[:1])).flatten(1)
    assert torch.linalg.matrix_rank(outputs) == 3
    torch.testing.assert_close(network(2 * a).flatten(1) - network(a).flatten(1), outputs)


# --- Output bias ------------------------------------------------------------------------------------------------

BIASES = {"default": None, "mean": lambda total, n: total / n, "mean_logit": lambda t, n: logit((t + 0.5) / (n + 1))}


def make_batches(shape=(3, 9, 13), sizes=(7, 7, 2)):
    """Bits, a pixel of which is never on and one always, in batches of several sizes."""
    x = torch.rand(sum(sizes), *shape).bernoulli()
    x[:, 0, 0, 0], x[:, 0, 0, 1] = 0, 1
    return x.numpy().astype(float), [(part, torch.zeros(len(part))) for part in x.split(list(sizes))]


@networks
@pytest.mark.parametrize("output_bias", BIASES)
def test_the_output_bias_starts_at_the_training_images(name, output_bias):
    x, batches = make_batches()
    decoder = make_decoder(name, x.shape[1:], output_bias=output_bias)
    before = {key: weight.clone() for key, weight in decoder.state_dict().items()}
    decoder.start_from(batches)
    after = decoder.state_dict()
    key = list(before)[-1]
    assert all(torch.equal(after[other], before[other]) for other in before if other != key)
    if output_bias == "default":
        assert torch.equal(after[key], before[key])
    else:
        by_pixel = name == "MLP"
        totals = x.sum(0).ravel() if by_pixel else x.sum((0, 2, 3))
        expected = BIASES[output_bias](totals, len(x) if by_pixel else x[:, 0].size)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(after[key].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert after[key].requires_grad is False
    assert all(parameter.requires_grad for parameter in decoder.parameters())


@networks
@pytest.mark.parametrize("output_bias", ["mean", "mean_logit"])
def test_images_all_of_the_mean_are_what_a_decoder_of_zero_weights_starts_at(name, output_bias):
    """What a likelihood would read: the mean of every image, where z says nothing yet."""
    x = torch.full((10, 1, 8, 8), 0.25)
    decoder = make_decoder(name, x.shape[1:], output_bias=output_bias)
    decoder.start_from([(x, None)])
    list(decoder.parameters())[-2].data.zero_()
    params = decoder(torch.randn(B, D))
    n = 10 if name == "MLP" else 640
    expected = 0.25 if output_bias == "mean" else logit((0.25 * n + 0.5) / (n + 1))
    torch.testing.assert_close(params, torch.full_like(params, expected))


def test_a_linear_decoder_starts_at_the_mean_image():
    x, batches = make_batches((1, 5, 3))
    decoder = from_yaml("decoder", "linear", "decoder.output_bias=mean")
    decoder.start_from(batches)
    np.testing.assert_allclose(decoder(torch.zeros(1, 20)).detach().numpy()[0], x.mean(0), atol=1e-6)


def test_by_default_no_training_image_is_read():
    make_decoder("MLP", (1, 8, 8)).start_from(iter(lambda: pytest.fail("read"), None))


def test_a_convolution_without_channels_has_its_bias_at_the_mean_image():
    x, batches = make_batches((1, 5, 3))
    decoder = make_decoder("Conv", (1, 5, 3), channels=[], hidden=7, output_bias="mean")
    decoder.start_from(batches)
    np.testing.assert_allclose(decoder.layers[-2].bias.detach().numpy(), x.mean(0).ravel(), atol=1e-6)


# --- Values that make no sense ----------------------------------------------------------------------------------


@networks
@parts
@pytest.mark.parametrize(
    "options",
    [{"activation": "Relu"}, {"activation": "functional"}, {"activation": 3}, {"normalization": "instance"}],
    ids=str,
)
def test_an_option_that_is_none_is_named(name, part, options):
    ((key, value),) = options.items()
    with pytest.raises(ValueError, match=rf"^{part}\.{key}={value}: "):
        make_case(part, name, **options)


@parts
def test_a_normalisation_is_checked_where_nothing_is_normalised(part):
    with pytest.raises(ValueError, match=rf"{part}\.normalization=instance"):
        make_case(part, "MLP", hidden=[], normalization="instance")


@networks
def test_an_output_bias_that_is_none_is_named(name):
    with pytest.raises(ValueError, match=r"^decoder\.output_bias=zero: choose default, mean or mean_logit"):
        make_decoder(name, (1, 8, 8), output_bias="zero")


@networks
@pytest.mark.parametrize("output_bias", ["mean", "mean_logit"])
def test_an_output_bias_is_for_one_number_a_pixel(name, output_bias):
    with pytest.raises(ValueError, match=rf"^decoder\.output_bias={output_bias} .* reads 2"):
        make_decoder(name, (1, 8, 8), p=2, output_bias=output_bias)
    make_decoder(name, (1, 8, 8), p=2, output_bias="default")


@parts
@pytest.mark.parametrize("options", [{"channels": []}, {"blocks": 0}, {"blocks": -1}], ids=str)
def test_a_resnet_has_a_stage_and_a_block(part, options):
    ((key, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{part}\.{key}={value}".replace("[]", r"\[\]")):
        make_case(part, "ResNet", **options)
