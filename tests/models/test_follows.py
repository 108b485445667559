"""Whether a conditional VAE does what its condition says, measured by a classifier of real images."""

import pytest
import torch
from helpers.runs import composed

from vae_exp.data import Sprites
from vae_exp.runs.trained import restore
from vae_exp.training.job import train

SHAPES, SCALES = 3, 6
OPTIONS = (
    "data=sprites", "data.source.label=[shape,scale]", "model=cvae", "latent_dim=8", "encoder.hidden=[256]",
    "encoder.out_features=128", "decoder.hidden=[128,256]", "optimizer.lr=0.002", "trainer.max_epochs=8",
    "trainer.accelerator=cpu", "logger=none", "report=false", "callbacks.pictures=null", "callbacks.curves=null",
    "trainer.enable_progress_bar=false",
)  # fmt: skip


def found(x):
    """Shape and scale `(N, 2)` of images: those of the sprite that, moved to the same place, has most pixels in common
    (the largest intersection over union, among all shapes, scales and rotations)."""
    source = Sprites(1, 1, 1, seed=0)
    every = torch.cartesian_prod(*map(torch.arange, source.sizes[:3]))
    own = centred(source.render(torch.cat([every, torch.full((len(every), 2), 16)], dim=1)) / 255).flatten(1)
    x = centred(x).flatten(1)
    common = x @ own.T
    return every[(common / (x.sum(dim=1)[:, None] + own.sum(dim=1) - common)).argmax(dim=1), :2]


def centred(x):
    """Images `(N, 1, 64, 64)` moved by whole pixels so that their centre of mass lies in the middle."""
    place, mass = torch.arange(64.0), x.sum(dim=(1, 2, 3)).clamp(min=1)
    down = (31.5 - (x.sum(dim=(1, 3)) @ place) / mass).round().int().tolist()
    right = (31.5 - (x.sum(dim=(1, 2)) @ place) / mass).round().int().tolist()
    return torch.stack([one.roll((a, b), dims=(1, 2)) for one, a, b in zip(x, down, right, strict=True)])


def measured(folder, num=20):
    """Of images at each of 18 conditions: the share with the shape that was asked for, and the mean distance of the
    scale, in steps of 0.1; the same for conditions in another order, which is chance."""
    model = restore(folder, accelerator="cpu", progress=False).model
    asked = torch.cartesian_prod(torch.arange(SHAPES), torch.arange(SCALES)).repeat_interleave(num, dim=0)
    torch.manual_seed(0)
    y = torch.stack([asked[:, 0], 0.5 + 0.1 * asked[:, 1]], dim=1)
    seen = found(model.sample(len(y), y).round())
    other = asked[torch.randperm(len(asked))]
    return tuple(
        (float((seen[:, 0] == one[:, 0]).float().mean()), float((seen[:, 1] - one[:, 1]).abs().float().mean()))
        for one in (asked, other)
    )


def test_the_classifier_is_right_on_real_images():
    source = Sprites(500, 1, 1, seed=1)
    factors = source.factors("train")
    assert (found(source.render(factors) / 255) == factors[:, :2]).float().mean(dim=0).min() > 0.97


@pytest.mark.slow
def test_a_small_cvae_on_sprites_follows_the_scale(tmp_path):
    """In 616 steps; the shape is not told apart yet."""
    train(composed(*OPTIONS), tmp_path / "run")
    (_, scale), (_, scale_by_chance) = measured(tmp_path / "run")
    assert scale < 1.2
    assert scale_by_chance > 1.5
