"""Runs in memory: a model and its images, made by hand or by a config, without a training."""

import json

import torch
from helpers.runs import SMALL, composed
from omegaconf import OmegaConf

from vae_exp.data import Images
from vae_exp.runs.build import build
from vae_exp.runs.trained import Trained


class Given:
    """A source of the splits that it is given."""

    def __init__(self, splits):
        self.splits = splits

    def fetch(self, root): ...

    def load(self, root):
        return dict(self.splits)


def made(model, splits, folder, num_classes=None, levels=None, **options):
    """Splits of `train`, `val` and `test`."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({}))
    shape = splits["train"].x.shape[1:]
    data = Images(Given(splits), ".", shape, num_classes, levels=levels, batch_size=1, eval_batch_size=64, **options)
    return Trained(folder, OmegaConf.create({"name": "made"}), model and model.eval(), data, progress=False)


class Known(Trained):
    """A run whose images are given, in batches of three."""

    def __init__(self, model, x, folder=None):
        cfg = OmegaConf.create({"name": "known"})
        super().__init__(folder, cfg, model.eval().requires_grad_(False), None, progress=False)
        self.x = x

    def num_images(self, split=None):
        return len(self.x)

    def batches(self, split=None, num_images=None):
        for i, x in enumerate(self.x[:num_images].split(3)):
            self.reseed(i)
            yield x, torch.zeros(len(x), dtype=torch.long)


def untrained(folder, *overrides):
    """The run of a command line before its first step."""
    cfg = composed(*SMALL, *overrides)
    model, data = build(cfg)
    (folder / "run.json").write_text(json.dumps({}))
    return Trained(folder, cfg, model.eval().requires_grad_(False), data, progress=False)
