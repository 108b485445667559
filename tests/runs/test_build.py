"""runs/build.py and runs/dry_run.py: whatever a constructor refuses, early or late, is an error that names the key."""

import pytest
from helpers.runs import SMALL, composed

from vae_exp.config import ConfigError
from vae_exp.runs.build import build
from vae_exp.runs.dry_run import check_step


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer._target_=torch.optim.Adagrad"], "optimizer: .*betas.*\nThe keys are .*: choose optimizer=adagrad"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["optimizer=sgd", "+optimizer.betas=[0.9,0.99]"], "optimizer: .*betas.*\nLeave it out with ~optimizer.betas"),
        (["optimizer=sgd", "optimizer.momentum=-1"], "optimizer: Invalid momentum value: -1"),
    ],
)
def test_what_an_optimizer_refuses_names_its_key(overrides, said):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        build(composed(*SMALL, *overrides))


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
