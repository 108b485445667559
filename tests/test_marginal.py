"""The marginal likelihood during training, and the weights of chosen steps."""

import pytest
import torch
from helpers.runs import curve, resume
from torch.distributions import MultivariateNormal

from vae_exp.callbacks import Marginal, Snapshots
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.runs.trained import restore

LINEAR = """
data=linear_gaussian data.image_shape=[1,1,6] data.train_size=64 data.source.val_size=20 data.source.test_size=30
data.source.noise=2 data.batch_size=16 latent_dim=2 encoder=linear decoder=linear likelihood=sse
optimizer.lr=0.01 init=normal init.std=0.02
trainer.accelerator=cpu trainer.max_epochs=2 trainer.enable_progress_bar=false logger=csv report=false
callbacks.pictures=null callbacks.curves=null trainer.log_every_n_steps=3 test=false
"""
LINEAR = tuple(LINEAR.split())
LOGGED = ("callbacks.marginal.every=2", "callbacks.marginal.splits=[train,val,test]")


def rows(folder):
    return [row for row in curve(folder) if any(value for key, value in row.items() if key.startswith("marginal/"))]


def others(folder):
    found = [{k: v for k, v in row.items() if not k.startswith("marginal/")} for row in curve(folder)]
    return [row for row in found if any(value for key, value in row.items() if key not in ("step", "epoch"))]


def closed_form(folder, step, split):
    """`-log p(x)` of each image under the linear decoder of a step, N(b, W W^T + s^2 I)."""
    trained = restore(folder, f"step_{step}", accelerator="cpu", progress=False)
    weight, bias = (each.double() for each in trained.model.decoder.layers.parameters())
    covariance = weight @ weight.T + torch.eye(6, dtype=weight.dtype) * trained.model.likelihood.scale**2
    x = torch.cat([x for x, _ in trained.batches(split)]).double().flatten(1)
    return -MultivariateNormal(bias, covariance).log_prob(x)


def test_it_is_the_closed_form_of_the_weights_of_that_step(run):
    steps = [2, 4, 6, 8]
    folder, _ = run(
        *LOGGED, "callbacks.marginal.num_samples=2000", f"callbacks.snapshots.at_steps={steps}", small=LINEAR
    )
    assert [int(row["step"]) + 1 for row in rows(folder)] == steps
    kept = {path.name for path in (folder / "checkpoints").glob("step_*")}
    assert kept == {f"step_{step}.ckpt" for step in steps}
    for row, step in zip(rows(folder), steps, strict=True):
        for split in ("train", "val", "test"):
            nll = float(row[f"marginal/{split}/nll"])
            assert nll == pytest.approx(closed_form(folder, step, split).mean().item(), abs=0.05)
            assert nll < -float(row[f"marginal/{split}/elbo"])


def test_from_posterior_samples_it_is_the_same(run):
    words = ("callbacks.marginal.every=4", "callbacks.marginal.splits=[val]", "callbacks.marginal.estimator=hmc")
    few = ("callbacks.marginal.num_samples=20", "callbacks.snapshots.at_steps=[4]", "trainer.max_epochs=1")
    folder, _ = run(*words, *few, "data.source.val_size=8", small=LINEAR)
    (row,) = rows(folder)
    assert float(row["marginal/val/nll"]) == pytest.approx(closed_form(folder, 4, "val").mean().item(), abs=0.2)


def test_training_does_not_notice_and_a_run_that_was_cut_off_has_the_same_rows(run):
    plain, _ = run(small=LINEAR, folder="plain")
    few = (
        *LOGGED,
        "callbacks.marginal.num_images=10",
        "callbacks.marginal.num_samples=5",
        "callbacks.snapshots.at_steps=[7]",
    )
    whole, _ = run(*few, small=LINEAR, folder="whole")
    part, _ = run(*few, "trainer.max_epochs=1", small=LINEAR, folder="part")
    resume(part, trainer__max_epochs=2)
    assert rows(part) == rows(whole)
    assert len(rows(whole)) == 4
    assert others(whole) == others(plain)
    at, end = (torch.load(whole / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("step_7", "last"))
    assert at["global_step"] == 7
    assert any(not torch.equal(value, end["state_dict"][key]) for key, value in at["state_dict"].items())


def test_gradients_that_are_accumulated_give_one_row_a_step(run):
    folder, _ = run(*LOGGED, "trainer.accumulate_grad_batches=2", "callbacks.snapshots.at_steps=[2]", small=LINEAR)
    assert [int(row["step"]) for row in rows(folder)] == [1, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": 0}, r"every=0"),
        ({"num_samples": 0}, r"num_samples=0"),
        ({"splits": ["all"]}, r"splits=\['all'\]: choose of train, val, test"),
        ({"splits": []}, r"splits=\[\]"),
        ({"estimator": "ais"}, r"estimator=ais: choose importance or hmc"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=rf"callbacks\.marginal\.{said}"):
        Marginal(**options)


def test_steps_below_1_unknown_weights_and_models_without_a_density_are_refused(run):
    with pytest.raises(ValueError, match=r"at_steps=\[0\]"):
        Snapshots([0])
    folder, _ = run("trainer.max_epochs=1", small=LINEAR)
    with pytest.raises(ConfigError, match=r"checkpoint=first: choose best, last, or step_N"):
        restore(folder, "first")
    with pytest.raises(ConfigError, match=r"no checkpoints/step_3\.ckpt"):
        restore(folder, "step_3")
    with pytest.raises(NoMeaningError, match=r"callbacks\.marginal\.every=null"):
        run("callbacks.marginal.every=2", "model=ae", folder="ae")
