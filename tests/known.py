"""A run in memory: a model and its images, without files, training or a data module."""

import json

import torch
from conftest import SMALL, composed
from omegaconf import OmegaConf

from vae_exp.runs.build import build
from vae_exp.runs.trained import Trained


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
