"""runs/build.py and runs/dry_run.py: whatever a constructor refuses, early or late, is an error that names the key."""

import pytest
import torch
from helpers.runs import SMALL, composed

from vae_exp.config import ConfigError
from vae_exp.runs.build import build, make
from vae_exp.runs.dry_run import check_step
from vae_exp.training.trainer import make_trainer


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer._target_=torch.optim.Adagrad"], "optimizer: .*betas.*\nThe keys are .*: choose optimizer=adagrad"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["optimizer=sgd", "+optimizer.betas=[0.9,0.99]"], "optimizer: .*betas.*\nLeave it out with ~optimizer.betas"),
        (["optimizer=sgd", "optimizer.momentum=-1"], "optimizer: Invalid momentum value: -1"),
        (["optimizer._target_=torch.optim.NAdam"], "optimizer: .*fused.*\nLeave it out with ~optimizer.fused"),
        (["+schedule@optimizer.lr=linear", "optimizer.lr.end=-1"], "optimizer.lr=-1: a number of at least 0 is needed"),
        (["encoder._target_=vae_exp.encoders.ResNet"], "encoder: .*hidden.*: choose encoder=resnet"),
    ],
)
def test_what_a_constructor_refuses_names_its_key(overrides, said):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        build(composed(*SMALL, *overrides))


def test_a_key_of_the_trainer_that_nothing_knows_is_to_be_left_out(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer: .*foo.*\nLeave it out with ~trainer\.foo"):
        make_trainer(composed(*SMALL, "+trainer.foo=1"), tmp_path)


def test_what_is_called_late_is_refused_by_its_key_too():
    """The optimizer of a run is made when its model is on the device."""
    make_optimizer = make(composed(*SMALL, "optimizer=rmsprop"), "optimizer")
    with pytest.raises(ConfigError, match="optimizer got an empty"):
        make_optimizer([])
    with pytest.raises(ConfigError, match=r"optimizer: .*'foo'"):
        make_optimizer([torch.zeros(1)], foo=1)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "adagrad", "radam"])
def test_every_optimizer_is_made(name):
    build(composed(*SMALL, f"optimizer={name}"))


def test_one_image_has_no_variance_to_normalise_by():
    model, data = build(composed(*SMALL, "encoder.normalization=batch"))
    with pytest.raises(ConfigError, match=r"data.batch_size: .*encoder.normalization=batch") as error:
        check_step(model, data.image_shape, 1)
    assert "encoder.normalization=layer" in str(error.value)
    check_step(model, data.image_shape, 2)
    check_step(build(composed(*SMALL, "encoder.normalization=layer"))[0], data.image_shape, 1)
