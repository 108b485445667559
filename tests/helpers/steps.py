"""Runs of many steps between two events, and when two of them are the same."""

from pathlib import Path

import pytest
import torch
from helpers.runs import curve

# Eleven steps an epoch, and Lightning has nothing to do within one unless an option says so.
LONG = ("data.source.size=192", "trainer.log_every_n_steps=11", "data.eval_batch_size=16")


class Schedules:
    """Learning rates: per step, per epoch, on a plateau."""

    @staticmethod
    def step(model):
        optimizer = model.optimizer(model.parameters())
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 2}]

    @staticmethod
    def epoch(model):
        optimizer = model.optimizer(model.parameters())
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    @staticmethod
    def plateau(model):
        optimizer = model.optimizer(model.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)
        return [optimizer], [{"scheduler": scheduler, "monitor": "val/elbo"}]


def last(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """The step and the weights of the last checkpoint."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state["global_step"], state["state_dict"]


def assert_same(one: Path, other: Path) -> None:
    """Two runs that ended with the same weights, to the bit, and logged the same numbers."""
    assert last(one)[0] == last(other)[0]
    for key, value in last(one)[1].items():
        assert torch.equal(value, last(other)[1][key]), key
    curves = [curve(folder) for folder in (one, other)]
    assert len(curves[0]) == len(curves[1]) > 0
    for row, expected in zip(*curves, strict=True):
        assert row.keys() == expected.keys()
        for name, value in row.items():  # the ledger adds in another order
            assert (float(value) if value else "") == (
                pytest.approx(float(expected[name]), rel=1e-9) if expected[name] else ""
            )
