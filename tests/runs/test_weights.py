"""Some parts of another run as a start, and parts that do not change."""

import pytest
import torch
from helpers.runs import curve, record, resume
from omegaconf import OmegaConf

from vae_exp.config import ConfigError

NORMED = ("encoder.normalization=batch",)


def state(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def part(weights, name):
    return {key.partition(".")[2]: value for key, value in weights.items() if key.startswith(f"{name}.")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_frozen_encoder_stays_and_the_rest_moves_also_when_resumed(run):
    """From an autoencoder into a VAE of other width; running means of batch normalisation stay, too."""
    ae, _ = run("model=ae", *NORMED, folder="ae")
    chosen = (f"init_from={ae}", "init_from_parts=[encoder]", "freeze=[encoder]", "latent_dim=5", *NORMED)
    whole, _ = run(*chosen, "trainer.max_epochs=3", folder="whole")
    started, _ = run(*chosen, "trainer.max_epochs=1", folder="started")
    before = {name: part(state(started), name) for name in ("encoder", "decoder")}
    assert before["encoder"].keys() >= {"layers.1.running_mean"}
    assert same(before["encoder"], part(state(ae, "best"), "encoder"))
    resume(started, trainer__max_epochs=3)
    assert same(part(state(started), "encoder"), before["encoder"])
    assert not same(part(state(started), "decoder"), before["decoder"])
    assert same(state(started), state(whole))
    assert curve(started) == curve(whole)
    assert record(started)["status"] == "finished"


def test_an_encoder_becomes_a_classifier(run):
    ae, _ = run("model=ae", folder="ae")
    m2, _ = run(
        "model=m2",
        "data.labelled=20",
        f"init_from={ae}",
        "init_from_parts={classifier:encoder}",
        "freeze=classifier",
        "model.classifier.hidden=[8]",
        "model.classifier.out_features=8",
        "+trainer.limit_train_batches=1",
        "trainer.max_epochs=1",
        folder="m2",
    )
    assert same(part(state(m2), "classifier"), part(state(ae, "best"), "encoder"))


def test_parts_that_are_not_loaded_start_from_the_images(run):
    first, _ = run("prior=vamp", "prior.pseudo_inputs=4", "optimizer.lr=0", "trainer.max_epochs=1", folder="first")
    ae, _ = run("model=ae", folder="ae")
    chosen = ("prior=vamp", "prior.pseudo_inputs=4", "optimizer.lr=0", "trainer.max_epochs=1")
    second, _ = run(*chosen, f"init_from={ae}", "init_from_parts=[encoder]", folder="second")
    assert torch.equal(state(second)["prior.logits"], state(first)["prior.logits"])
    assert same(part(state(second), "encoder"), part(state(ae, "best"), "encoder"))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (("freeze=[coder]",), r"freeze=coder: the parts .* encoder, decoder, posterior, likelihood"),
        (("freeze=[prior]",), "freeze=prior: the parts"),
        (("freeze=[encoder,decoder,posterior,likelihood]",), "nothing is left to train"),
        (("freeze={encoder:decoder}",), "names of parts are needed"),
        (("init_from_parts=[encoder]",), "from which run"),
        (("init_from={run}", "init_from_parts=[classifier]"), "init_from_parts=classifier: the parts of this model"),
        (("init_from={run}", "init_from_parts={encoder:classifier}"), r"init_from_parts=classifier: .*best.ckpt are"),
        (("init_from={run}", "init_from_parts=[encoder]", "encoder.hidden=[9]"), "encoder differs from encoder"),
    ],
)
def test_what_is_wrong_is_refused(run, chosen, said):
    folder, _ = run(folder="first")
    with pytest.raises(ConfigError, match=said):
        run(*(word.replace("{run}", str(folder)) for word in chosen), folder="second")


def test_configs_of_earlier_runs_have_no_such_keys(run):
    folder, metrics = run("trainer.max_epochs=1")
    cfg = OmegaConf.load(folder / "config.yaml")
    del cfg.freeze, cfg.init_from_parts
    OmegaConf.save(cfg, folder / "config.yaml")
    assert resume(folder, trainer__max_epochs=2)["test/elbo"] != metrics["test/elbo"]
