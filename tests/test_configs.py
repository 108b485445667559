"""Every option of every group composes, is built and takes a step, with every model; or says why it cannot."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, composed

from vae_exp.config import CONF, ConfigError
from vae_exp.runs import bound, build, check_values
from vae_exp.trainer import make_trainer

MODELS = ("vae", "cvae", "beta_vae")
GROUPS = sorted(path.name for path in Path(CONF).iterdir() if path.is_dir() and path.name not in ("hydra", "local"))
UNLABELLED = ("frey_face", "binarized_mnist", "image_folder", "celeba")
# Or colour: no bits by themselves.
GREY = ("fashion_mnist", "frey_face", "cifar10", "svhn", "celeba", "image_folder", "fake")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONF) / group).glob("*.yaml"))


def take_a_step(model, data) -> None:
    x = torch.rand(4, *data.image_shape)
    x = x.bernoulli() if data.values == "binary" else x
    y = torch.arange(4) % (data.num_classes or 1)
    optimizer = model.configure_optimizers()
    before = [parameter.clone() for parameter in model.parameters()]
    loss, draw = model.objective(model, x, y)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert draw.elbo.shape == (4,)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_takes_a_step_with_every_model(group, option, model):
    chosen = [f"model={model}", f"{group}={option}"] if group != "model" else [f"model={option}"]
    if (group, option, model) == ("objective", "elbo", "beta_vae"):
        with pytest.raises(ConfigError, match="model=vae"):
            build(composed(*chosen))
    elif model == "cvae" and option in UNLABELLED:
        with pytest.raises(ConfigError, match="labels"):
            build(composed(*chosen))
    else:
        take_a_step(*build(composed(*chosen)))


@pytest.mark.parametrize("trainer", options("trainer"))
def test_every_trainer_is_made_with_every_callback(trainer, tmp_path):
    cfg = composed(f"trainer={trainer}", *(["trainer.accelerator=cpu"] if trainer in ("auto", "ddp") else []))
    if trainer == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="gpu"):
            make_trainer(cfg, tmp_path)
    else:
        made = make_trainer(cfg, tmp_path)
        assert {type(callback).__name__ for callback in made.callbacks} >= {"Checkpoint", "Latents", "Pictures"}
        assert made.max_epochs == cfg.trainer.max_epochs


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("nets", [("mlp", "mlp"), ("mlp", "conv"), ("conv", "mlp"), ("conv", "conv")])
@pytest.mark.parametrize("prior", options("prior"))
@pytest.mark.parametrize("likelihood", options("likelihood"))
def test_every_combination_of_parts_is_built_or_refused_for_a_reason(model, data, nets, prior, likelihood):
    chosen = (f"model={model}", f"data={data}", f"prior={prior}", f"likelihood={likelihood}")
    cfg = composed(*chosen, f"encoder={nets[0]}", f"decoder={nets[1]}")
    grey = data in GREY
    if model == "cvae" and data in UNLABELLED:
        with pytest.raises(ConfigError, match="Ways out: model=vae"):
            build(cfg)
    elif likelihood == "bce" and grey:
        with pytest.raises(ConfigError, match=r"Ways out: data\.binarize=dynamic"):
            build(cfg)
    else:
        take_a_step(*build(cfg))


@pytest.mark.parametrize("data", GREY)
def test_grey_and_colour_sets_choose_sse_visibly_and_give_way(data):
    assert composed(f"data={data}").likelihood._target_ == "vae_exp.likelihoods.Normal"
    chosen = composed(f"data={data}", "likelihood=bce", "data.binarize=dynamic")
    assert chosen.likelihood._target_ == "vae_exp.likelihoods.Bernoulli"
    build(chosen)


def test_bce_on_grey_pixels_must_be_asked_for_and_is_recorded_as_no_bound():
    cfg = composed("data=fashion_mnist", "likelihood=bce", "likelihood.allow_grey=true")
    assert bound(*build(cfg))["is_bound"] is False
    assert bound(*build(composed("data=mnist")))["is_bound"] is True


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"of": "log p(x)", "representation": "bits, dynamic", "kind": "mass"}),
        (("model=cvae",), {"of": "log p(x|y)"}),
        (("data=binarized_mnist",), {"representation": "bits, as distributed", "kind": "mass"}),
        (("data=frey_face",), {"representation": "256 levels", "kind": "density"}),
        (("data=cifar10", "data.dequantize=true"), {"representation": "256 levels, dequantised", "kind": "density"}),
    ],
)
def test_what_is_bounded(overrides, expected):
    recorded = bound(*build(composed(*overrides)))
    assert recorded | expected == recorded


@pytest.mark.parametrize("shape", [[1, 28, 28], [1, 28, 20], [1, 8, 8], [3, 32, 32], [1, 9, 13]])
@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_networks_fit_any_image_without_an_edit(shape, net):
    take_a_step(*build(composed("data=fake", f"data.image_shape={shape}", f"encoder={net}", f"decoder={net}")))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("posterior.in_features=3", "posterior"),
        ("prior.latent_dim=3", "prior"),
        ("decoder.latent_dim=3", "decoder"),
        ("decoder.image_shape=[1,3,3]", "decoder"),
        ("encoder.activation=Relu", "encoder"),
        ("encoder.hidden=3", "encoder"),
        ("+encoder.foo=3", "encoder"),
        ("likelihood._target_=vae_exp.likelihoods.Nothing", "likelihood"),
        ("objective.num_samples=0", r"objective\.num_samples=0"),
        ("data.binarize=often", r"data\.binarize=often"),
        ("data.batch_size=0", r"data\.batch_size=0"),
        ("data.dequantize=true", r"data\.dequantize"),
        ("data=digits data.binarize=none data.dequantize=true likelihood=sse", "17 levels"),
        ("monitor=val/eblo", "val/elbo"),
        ("seed=-1", "seed=-1"),
        ("trainer.log_every_n_steps=0", "log_every_n_steps"),
    ],
)
def test_what_does_not_fit_is_named(override, named):
    cfg = composed(*override.split())
    with pytest.raises(ConfigError, match=named) as error:
        check_values(cfg), build(cfg)
    assert len(str(error.value).splitlines()) <= 6


def test_a_model_and_its_data_are_as_the_config_says():
    """What the composed config shows is what is built: nothing is filled in behind it."""
    model, data = build(composed("model=cvae", "data=digits", "latent_dim=7", "encoder.out_features=9"))
    assert data.image_shape == (1, 8, 8)
    assert model.context_dim == 10
    assert model.posterior.mu.in_features == 9
    assert model.posterior.mu.out_features == 7


def test_the_networks_alone_are_compiled(monkeypatch):
    """In place, so that the keys of a checkpoint do not hang on it."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    model, _ = build(composed(*SMALL, "trainer.compile=true"))
    assert compiled == [model.encoder, model.decoder]
    assert model.state_dict().keys() == build(composed(*SMALL))[0].state_dict().keys()


@pytest.mark.parametrize("value", ["true", "maybe", "1"])
def test_cuda_graphs_are_auto_or_never(tmp_path, value):
    with pytest.raises(ConfigError, match="choose auto or false"):
        make_trainer(composed(*SMALL, f"trainer.cuda_graphs={value}"), tmp_path)
