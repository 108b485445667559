"""What a model says it can do: has, require, num_classes, label, classify, code."""

import pytest
import torch
import torch.nn.functional as F
from helpers import m2
from helpers.runs import SMALL, composed

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.models import CVAE
from vae_exp.runs.build import build

ABILITIES = ("density", "prior", "slope")
CLASSES = 4
# Options; what the model lacks; its number of classes.
MODELS = {
    "vae": ("", (), 0),
    "beta_vae": ("", (), 0),
    "hvae": ("model.upper_dims=[2]", (), 0),
    "cvae": ("", (), CLASSES),
    "m2": ("", ("slope",), CLASSES),
    "ae": ("", ABILITIES, 0),
}
models = pytest.mark.parametrize("name", MODELS)


def made(name):
    torch.manual_seed(0)
    model, _ = build(composed(*SMALL, f"model={name}", *MODELS[name][0].split()))
    return model.eval().requires_grad_(False)


@models
def test_it_has_what_it_does_not_lack(name):
    model, (_, lacks, classes) = made(name), MODELS[name]
    assert tuple(ability for ability in ABILITIES if not model.has(ability)) == lacks
    assert model.num_classes == classes
    for ability in ABILITIES:
        if ability in lacks:
            with pytest.raises(NoMeaningError, match=r"model=\w+, or nll=is$"):
                model.require(ability, "nll=is")
            with pytest.raises(NoMeaningError, match=r"choose model=\w+$"):
                model.require(ability)
        else:
            model.require(ability)


@models
def test_what_it_has_it_does(name):
    """A density gives finite numbers, a prior gives images, a slope a gradient in z."""
    model, x = made(name), torch.rand(3, 1, 8, 8).round()
    y = model.example_y(3)
    if model.has("density"):
        assert model.log_marginal(x, y, 5).isfinite().all()
    if model.has("prior"):
        assert model.sample(3, y).shape == x.shape
    else:
        assert model.prior(model.context(y)) is None
    if model.has("slope"):
        draw = model.draw(x, y)
        z = draw.z.requires_grad_()
        (slope,) = torch.autograd.grad(draw.log_joint(z).sum(), z)
        assert slope[..., : 3 if name != "hvae" else 5].abs().min() > 0


def test_a_refusal_is_a_few_lines_for_a_command_and_a_value_error_for_a_notebook():
    assert issubclass(NoMeaningError, ConfigError)
    with pytest.raises(ValueError, match="an autoencoder has no density over its codes"):
        made("ae").log_marginal(torch.rand(2, 1, 8, 8))


@models
def test_examples_of_labels_are_all_classes_in_turn(name):
    y = made(name).example_y(2 * CLASSES + 1)
    expected = torch.arange(2 * CLASSES + 1) % CLASSES
    assert torch.equal(y, expected if MODELS[name][2] else torch.zeros_like(expected))


def test_a_label_is_given_or_guessed():
    x, y = m2.make_batch()
    assert made("vae").label(torch.rand(2, 1, 8, 8), torch.tensor([1, 2])) is None
    cvae, guesser = m2.make(cls=CVAE), m2.make().eval()
    assert torch.equal(cvae.label(x, y), y)
    assert cvae.label(x) is None
    logits = F.one_hot((y + 1) % m2.CLASSES, m2.CLASSES).float()  # the class after the true one
    guesser.classify = lambda x: logits
    assert torch.equal(guesser.label(x), (y + 1) % m2.CLASSES)
    some = torch.where(torch.arange(m2.B) < 2, y, -1)
    assert torch.equal(guesser.label(x, some), torch.where(some < 0, (y + 1) % m2.CLASSES, y))


@models
def test_only_a_model_that_infers_labels_classifies(name):
    model, x = made(name), torch.rand(3, 1, 8, 8)
    assert model.infers_labels == (name == "m2")
    if model.infers_labels:
        assert model.classify(x).exp().sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    else:
        with pytest.raises(NoMeaningError, match="infers no labels: choose model=m2"):
            model.classify(x)


@models
def test_the_code_is_what_the_decoder_reads(name):
    """Whatever else is in z, images are those of the code."""
    model, x = made(name), torch.rand(4, 1, 8, 8)
    y = model.example_y(4)
    c, q, code = model.context(y), model.encode(x, y), model.code(x, y)
    (dims,) = code.event_shape
    assert model.decoder.latent_dim == dims
    z = q.sample()
    torch.testing.assert_close(model.decode(z, c).mean, model.decode(z[:, :dims], c).mean)
    # Its moments are those of samples of q.
    z = q.sample((20_000,))[..., :dims]
    torch.testing.assert_close(z.mean(0), code.mean, rtol=0, atol=0.05)
