"""Parts that start from the training images: in a new run, and in no other."""

import pytest
import torch
from helpers.runs import SMALL, composed, curve, resume

from vae_exp.config import ConfigError
from vae_exp.runs.build import build, prepare
from vae_exp.training.job import train

BITS = ("data.binarize=dynamic", "likelihood=bce")
VAMP = ("prior=vamp", "prior.pseudo_inputs=10")
BIAS = ("decoder.output_bias=mean_logit", *BITS)
FROZEN = ("optimizer.lr=0", "trainer.max_epochs=1")


def state(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def training_images(*chosen):
    _, data = build(composed(*SMALL, *chosen))
    prepare(data)
    return torch.cat([x for x, _ in data.training_images()])


@pytest.mark.parametrize("bits", [(), BITS])
def test_pseudo_inputs_start_as_training_images(run, bits):
    """Each is one of them, squeezed into [0.05, 0.95], and none is taken twice."""
    folder, _ = run(*VAMP, *FROZEN, *bits)
    pseudo_inputs = (state(folder)["prior.logits"].sigmoid() - 0.05) / 0.9
    x = training_images(*bits)
    distance = (pseudo_inputs[:, None] - x).abs().amax((2, 3, 4))  # (10, 48)
    rows = distance.argmin(1)
    assert (distance.amin(1) < 1e-5).all()
    assert len(set(rows.tolist())) == 10


def test_pseudo_inputs_of_a_cvae_start_as_images_of_their_class(run):
    folder, _ = run(*VAMP, *FROZEN, "model=cvae")
    pseudo_inputs = (state(folder)["prior.logits"].sigmoid() - 0.05) / 0.9
    _, data = build(composed(*SMALL))
    prepare(data)
    split = data.splits["train"]
    rows = (pseudo_inputs[:, None] - split.x / 255).abs().amax((2, 3, 4)).argmin(1)
    assert split.y[rows].tolist() == [k % 4 for k in range(10)]


def test_the_output_bias_starts_at_the_logit_of_the_mean_image(run):
    folder, _ = run(*BIAS, *FROZEN)
    x = training_images(*BIAS).double()
    expected = torch.logit((x.sum(0) + 0.5) / (len(x) + 1)).flatten()
    torch.testing.assert_close(state(folder)["decoder.layers.2.bias"].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_does_not_start_again(run):
    chosen = (*VAMP, *BIAS)
    whole, _ = run(*chosen, "optimizer.lr=0.01", "trainer.max_epochs=4", folder="whole")
    part, _ = run(*chosen, "optimizer.lr=0.01", "test=false", folder="part")
    resume(part, trainer__max_epochs=4, test=True)
    assert curve(part) == curve(whole)
    assert all(torch.equal(value, state(whole)[name]) for name, value in state(part).items())


def test_a_run_that_starts_from_weights_keeps_them(run):
    chosen = (*VAMP, *BIAS)
    folder, _ = run(*chosen, "optimizer.lr=0.01", folder="first")
    started, _ = run(*chosen, *FROZEN, f"init_from={folder}", folder="second")
    first, second = state(folder, "best"), state(started)
    assert all(torch.equal(value, second[name]) for name, value in first.items() if name != "step")


@pytest.mark.parametrize(
    ("part", "named"), [("prior=vamp", "prior=vamp"), ("decoder.output_bias=mean_logit", r"decoder\.output_bias")]
)
def test_images_that_a_part_cannot_start_from_are_refused_in_a_few_lines(tmp_path, part, named):
    real = ("data=linear_gaussian", "data.source.val_size=8", "data.source.test_size=8", "data.train_size=32")
    options = [option for option in SMALL if not option.startswith("data")]
    with pytest.raises(ConfigError, match=named):
        train(composed(*options, *real, "data.batch_size=16", part), tmp_path)
