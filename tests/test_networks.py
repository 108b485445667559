"""Encoders and decoders: shapes for any image, and whose context goes where."""

import pytest
import torch

from vae_exp import decoders, encoders

B, D, CONTEXT, FEATURES = 3, 2, 4, 6
SHAPES = [(1, 28, 28), (1, 28, 20), (1, 8, 8), (3, 32, 32), (1, 27, 13)]
SIZES = {"MLP": {"hidden": [7]}, "Conv": {"channels": [4, 5]}}

networks = pytest.mark.parametrize("name", SIZES)
contexts = pytest.mark.parametrize("context_dim", [0, CONTEXT])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_encoder(name, image_shape, context_dim=0, **sizes):
    return getattr(encoders, name)(
        image_shape, context_dim, out_features=FEATURES, activation="Tanh", **{**SIZES[name], **sizes}
    )


def make_decoder(name, image_shape, context_dim=0, p=1, **sizes):
    return getattr(decoders, name)(D, image_shape, context_dim, p, activation="Tanh", **{**SIZES[name], **sizes})


def make_context(context_dim):
    return torch.randn(B, context_dim) if context_dim else None


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


@pytest.mark.parametrize("name", SIZES)
def test_default_sizes_fit_mnist(name):
    x = torch.rand(B, 1, 28, 28)
    assert getattr(encoders, name)(x.shape[1:])(x).dim() == 2
    assert getattr(decoders, name)(D, x.shape[1:])(torch.randn(B, D)).shape == x.shape


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 9, 13, 15])
def test_any_side_survives_any_number_of_halvings(depth, side):
    shape, channels = (1, side, 8), [3] * depth
    assert make_encoder("Conv", shape, channels=channels)(torch.rand(B, *shape)).shape == (B, FEATURES)
    assert make_decoder("Conv", shape, channels=channels)(torch.randn(B, D)).shape == (B, *shape)


@pytest.mark.parametrize("image_shape", [(1, 3, 28), (1, 28, 3)])
def test_an_image_too_small_names_the_key(image_shape):
    with pytest.raises(ValueError, match=r"encoder\.channels"):
        make_encoder("Conv", image_shape)
    with pytest.raises(ValueError, match=r"decoder\.channels"):
        make_decoder("Conv", image_shape)


@networks
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_an_output_depends_on_all_of_its_own_input_and_context_and_on_no_other(name, part):
    shape = (2, 8, 8)
    if part == "encoder":
        network, a = make_encoder(name, shape, CONTEXT), torch.rand(B, *shape)
    else:
        network, a = make_decoder(name, shape, CONTEXT, 2), torch.randn(B, D)
    a, c = a.requires_grad_(), torch.randn(B, CONTEXT, requires_grad=True)
    network(a, c)[1].sum().backward()
    for gradient in (a.grad, c.grad):
        assert (gradient[1] != 0).all()
        assert (gradient[[0, 2]] == 0).all()
