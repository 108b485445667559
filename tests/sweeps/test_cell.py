"""Cells: what fixes their name."""

from copy import deepcopy

import pytest
from helpers.runs import SMALL, composed
from omegaconf import OmegaConf

from vae_exp.sweeps import cell
from vae_exp.sweeps.cell import identity


def config(*words):
    return OmegaConf.to_container(composed(*SMALL, *words))


SAME = (
    "logger=none", "report=true", "name=other", "data.root=/elsewhere", "+callbacks.curves=null", "latent_dim=3.0",
    "trainer.enable_progress_bar=true", "expected={metric: test/elbo, value: 1, tolerance: 2}", "trainer.devices=[0]",
    "sweep.retry=true", "launcher=processes",
)  # fmt: skip
OTHER = (
    "seed=1", "latent_dim=4", "data.seed=1", "likelihood=sse", "trainer.max_epochs=3", "trainer.devices=2",
    "trainer.accelerator=auto", "callbacks.latents=null", "test=false", "trainer.precision=bf16-mixed",
)  # fmt: skip


@pytest.mark.parametrize("word", SAME)
def test_what_changes_no_number_is_one_cell(word):
    words = [] if word == "latent_dim=3.0" else [word]
    other = config(*(word.replace("+callbacks.curves=null", "callbacks.curves=null") for word in words))
    if not words:
        other["latent_dim"] = 3.0
    assert identity(other) == identity(config())


@pytest.mark.parametrize("word", OTHER)
def test_what_changes_a_number_is_another_cell(word):
    assert identity(config(word)) != identity(config())


def test_a_config_of_before_a_key_existed_is_the_same_cell():
    earlier = config()
    for node, keys in (
        (earlier, ("init", "weight_prior", "init_from_parts", "freeze", "draw")),
        (earlier["data"], ("attributes", "train_limit")),
        (earlier["callbacks"], ("marginal", "snapshots")),
    ):
        for key in keys:
            assert not node.pop(key, None) or key in ("marginal", "snapshots")
    assert identity(earlier) == identity(config())
    for word in ("init=glorot", "weight_prior=1.0", "data.train_limit=10", "callbacks.marginal.every=5"):
        size = ["data.train_size=48"] if word.startswith("weight") else []
        assert identity(config(word, *size)) != identity(config(*size)), word


def test_a_change_of_the_code_that_changes_numbers_is_another_cell(monkeypatch):
    before = identity(config())
    monkeypatch.setattr(cell, "VERSION", cell.VERSION + 1)
    assert identity(config()) != before


def test_the_users_own_code_data_and_weights_are_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cfg = config()
    (tmp_path / "own_part.py").write_text("a = 1")
    cfg["prior"]["_target_"] = "own_part.Prior"
    first = identity(cfg)
    (tmp_path / "own_part.py").write_text("a = 2")
    assert identity(cfg) != first

    cfg = config()
    cfg["data"]["source"]["path"] = str(tmp_path / "own.npz")
    none = identity(cfg)
    (tmp_path / "own.npz").write_text("1")
    one = identity(cfg)
    (tmp_path / "own.npz").write_text("12")
    assert len({none, one, identity(cfg)}) == 3

    weights = []
    for name in ("a", "b", "c"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.ckpt").write_text("same" if name != "c" else "other")
        weights.append(identity(deepcopy(config()) | {"init_from": str(tmp_path / name)}))
    assert weights[0] == weights[1] != weights[2]
