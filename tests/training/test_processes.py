"""Several processes of one run, however they were started."""

import csv
import json
import subprocess
import sys

import pytest
from helpers.runs import SMALL, command, composed, environment

from vae_exp.config import ConfigError
from vae_exp.lock import locked
from vae_exp.training.job import _only_writer
from vae_exp.training.trainer import make_trainer

DDP = (*SMALL, "trainer=ddp", "trainer.accelerator=cpu")
NUMBERS = ("train/elbo", "val/elbo", "test/elbo")


def numbers(folder):
    with (folder / "metrics.csv").open() as file:
        return [[row[name] for name in NUMBERS] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_train_as_one_run_whoever_starts_them(tmp_path):
    """Started by Lightning, by torchrun, and by hand on two nodes, here two folders of one machine."""
    done = command(*DDP, "trainer.devices=2", "hydra.run.dir=ddp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recommended" not in done.stderr
    torchrun = ("--nproc-per-node=2", "-m", "vae_exp", *DDP, "trainer.devices=2", "hydra.run.dir=torchrun")
    done = command(*torchrun, cwd=tmp_path, module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    nodes = []
    for rank in (0, 1):
        place = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT="29617", NODE_RANK=str(rank))
        folder = tmp_path / f"node{rank}"
        folder.mkdir()
        words = (*DDP, "trainer.devices=1", "trainer.num_nodes=2")
        nodes.append(subprocess.Popen([sys.executable, "-m", "vae_exp", *words], cwd=folder, env=place))
    assert [node.wait(300) for node in nodes] == [0, 0]
    assert not list((tmp_path / "node1").iterdir())  # one run has one folder
    (run,) = (tmp_path / "node0" / "outputs" / "vae_fake").iterdir()
    for folder in (tmp_path / "torchrun", run):
        assert numbers(folder) == numbers(tmp_path / "ddp")
        assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_further_node_goes_on_with_the_run_that_the_first_one_has_locked(tmp_path, monkeypatch):
    with locked(tmp_path):
        with pytest.raises(ConfigError, match="another process is training this run"), _only_writer(tmp_path):
            pass
        monkeypatch.setenv("NODE_RANK", "1")
        with _only_writer(tmp_path):
            pass


@pytest.mark.slow
def test_a_sweep_is_one_process(tmp_path):
    done = command("-m", *SMALL, "seed=0,1", cwd=tmp_path, WORLD_SIZE="2", RANK="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: -m is one process, but WORLD_SIZE")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_other_strategies_are_refused(strategy, tmp_path):
    with pytest.raises(ConfigError, match=f"trainer.strategy={strategy}: choose auto or ddp"):
        make_trainer(composed(*DDP, "trainer.devices=2", f"trainer.strategy={strategy}"), tmp_path)


def test_one_device_is_not_taken_for_two(tmp_path):
    with pytest.raises(ConfigError, match=r"single_device uses one device, trainer.devices=2 asks for more"):
        make_trainer(composed(*DDP, "trainer.devices=2", "trainer.strategy=single_device"), tmp_path)
