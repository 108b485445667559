"""Every option of every group composes, is built and takes a step, with every model; or says why it cannot."""

import inspect
from math import isfinite
from pathlib import Path

import pytest
import torch
from conftest import SMALL, composed
from hydra.core.hydra_config import HydraConfig

from vae_exp.config import CONF, ConfigError
from vae_exp.runs.build import bound, build, check_values
from vae_exp.training.trainer import make_trainer

GROUPS = sorted(
    path.name
    for path in Path(CONF).iterdir()
    if path.is_dir() and path.name not in ("hydra", "local", "schedule", "what")
)
UNLABELLED = ("frey_face", "binarized_mnist", "linear_gaussian", "celeba", "image_folder", "npz")
GREY = ("fashion_mnist", "frey_face", "cifar10", "fake", "svhn", "celeba", "image_folder", "npz")
OF_LABELS = ("cvae", "m2")
DISCRETE = ("bernoulli", "categorical")
# A tiny model: the grid below builds many.
NARROW = ("encoder.hidden=[8]", "decoder.hidden=[8]")
SMALL_IMAGE = ("data=fake", "data.image_shape=[1,8,8]", "latent_dim=4")
TINY = (*NARROW, *SMALL_IMAGE)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONF) / group).glob("*.yaml"))


MODELS = options("model")


def take_a_step(model, data) -> None:
    x = torch.rand(4, *data.image_shape)
    x = x.bernoulli() if data.values == "binary" else x
    y = torch.arange(4) % (data.num_classes or 1)
    optimizer = model.configure_optimizers()
    before = [parameter.clone() for parameter in model.parameters()]
    loss, draw = model.objective(model, x, y, model.step)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(term.shape == (4,) and term.isfinite().all() for term in draw.terms.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def why_not(model, data="mnist", prior="standard_normal", posterior="diagonal_normal", objective="elbo", likelihood=""):
    """What a user is told of parts that do not go together; None where they do."""
    if model in OF_LABELS and data in UNLABELLED:
        return "Ways out: model=vae"
    if model == "beta_vae" and objective != "beta_elbo":
        return "choose model=vae"
    if model == "m2" and objective != "semi_supervised":
        return "choose model=cvae"
    if model == "ae" and (objective != "recon" or prior != "none"):
        return "leave prior=none objective=recon"
    if likelihood == "bce" and data in GREY:
        return r"Ways out: data\.binarize=dynamic"
    on_unit = ("bce", "discretized_logistic", "categorical_256", "continuous_bernoulli")
    if likelihood in on_unit and data == "linear_gaussian":
        return "the data are real numbers"
    if likelihood == "sigma_vae" and model == "m2":
        return "choose likelihood=gaussian_shared"
    if model == "hvae" and posterior != "bottom_up":
        return r"model\.upper_dims=\[10\].* Ways out: posterior=bottom_up"
    if prior == "none" and model != "ae":
        return "prior=none has no kl"
    if (prior == "top_down") != (posterior == "bottom_up") and prior not in ("none", "vamp"):
        return "prior gives shape"
    if prior not in ("vamp", "none") and prior != posterior and {prior, posterior} & {*DISCRETE}:
        return "prior is over .* the posterior over"
    if posterior == "bottom_up" and model != "hvae":
        return "decoder"
    if objective == "semi_supervised" and model != "m2":
        return "choose model=m2"
    if posterior in DISCRETE and objective == "mcem":
        return "for discrete ones choose objective=wake_sleep"
    if posterior in DISCRETE and objective != "wake_sleep":
        return "have no pathwise gradient"
    if prior == "none":
        return None
    if posterior == "point":
        return "posterior=point has no density|closed form|factorises"
    return {
        "free_bits": None if (prior, posterior) in FACTORISED else "closed form",
        "beta_tcvae": None if posterior in ("diagonal_normal", "laplace") else "factorises",
        "dip": "mean and covariance" if posterior in ("flow", "bottom_up") else None,
    }.get(objective)


FACTORISED = (("standard_normal", "diagonal_normal"), ("standard_normal", "laplace"))


def check(*chosen: str) -> None:
    """Builds and takes a step, or is told why not."""
    cfg = composed(*chosen)
    choices = {key.partition("@")[0]: option for key, option in HydraConfig.get().runtime.choices.items()}
    why = why_not(**{name: choices[name] for name in inspect.signature(why_not).parameters})
    if why is None:
        take_a_step(*build(cfg))
    else:
        with pytest.raises(ConfigError, match=why):
            build(cfg)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_takes_a_step_with_every_model(group, option, model):
    chosen = [f"model={model}", f"{group}={option}"] if group != "model" else [f"model={option}"]
    sized = {"data": NARROW, "encoder": SMALL_IMAGE, "decoder": SMALL_IMAGE, "experiment": ()}
    chosen = [*sized.get(group, TINY), *chosen]
    check(*chosen)


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
@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("prior", options("prior"))
@pytest.mark.parametrize("posterior", options("posterior"))
def test_every_posterior_with_every_prior(is_told, prior, posterior):
    model = "cvae" if is_told else "hvae" if posterior == "bottom_up" else "vae"
    chosen = (*TINY, f"model={model}", f"posterior={posterior}", f"prior={prior}")
    check(*chosen)


@pytest.mark.slow
@pytest.mark.parametrize("posterior", options("posterior"))
@pytest.mark.parametrize("objective", options("objective"))
def test_every_objective_with_every_posterior(objective, posterior):
    model = ("model=hvae", "prior=top_down") if posterior == "bottom_up" else ("model=vae", "prior=standard_normal")
    chosen = (*TINY, *model, f"posterior={posterior}", f"objective={objective}")
    check(*chosen)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "m2"])
@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("likelihood", options("likelihood"))
def test_every_likelihood_with_all_data(model, data, likelihood):
    chosen = (f"model={model}", f"data={data}", f"likelihood={likelihood}", *NARROW)
    check(*chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", ["mnist", "frey_face", "digits", "cifar10", "linear_gaussian", "sprites"]
)  # each a size
@pytest.mark.parametrize("encoder", options("encoder"))
@pytest.mark.parametrize("decoder", options("decoder"))
def test_every_network_with_images_of_every_size(data, encoder, decoder):
    take_a_step(*build(composed(f"data={data}", f"encoder={encoder}", f"decoder={decoder}")))


@pytest.mark.parametrize("data", ["fashion_mnist", "frey_face", "cifar10", "fake", "npz"])
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
        (("data=linear_gaussian",), {"representation": "real numbers", "kind": "density", "is_bound": True}),
    ],
)
def test_what_is_bounded(overrides, expected):
    recorded = bound(*build(composed(*overrides)))
    assert recorded | expected == recorded


@pytest.mark.parametrize("shape", [[1, 28, 28], [1, 28, 20], [1, 8, 8], [3, 32, 32], [1, 9, 13]])
@pytest.mark.parametrize("net", options("encoder"))
def test_networks_fit_any_image_without_an_edit(shape, net):
    take_a_step(*build(composed("data=fake", f"data.image_shape={shape}", f"encoder={net}", f"decoder={net}")))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("posterior.in_features=3", "posterior"),
        ("prior.latent_dim=3", "prior"),
        ("decoder.latent_dim=3", "decoder"),
        ("decoder.image_shape=[1,3,3]", "decoder"),
        ("encoder.activation=Relu", r"encoder\.activation=Relu"),
        ("decoder.activation=Relu", r"decoder\.activation=Relu"),
        ("decoder=resnet decoder.channels=[]", r"decoder\.channels=\[\]"),
        ("likelihood=gaussian decoder.output_bias=mean", r"decoder\.output_bias=mean"),
        ("encoder.hidden=3", "encoder"),
        ("+encoder.foo=3", "encoder"),
        ("likelihood._target_=vae_exp.likelihoods.Nothing", "likelihood"),
        ("objective.num_samples=0", r"objective\.num_samples=0"),
        ("+schedule@objective.num_samples=linear", r"objective\.num_samples: a count is no schedule"),
        ("data.binarize=often", r"data\.binarize=often"),
        ("data.batch_size=0", r"data\.batch_size=0"),
        ("data.dequantize=true", r"data\.dequantize"),
        ("data=digits data.binarize=none data.dequantize=true likelihood=sse", "17 levels"),
        ("monitor=val/eblo", "val/elbo"),
        ("monitor=val/iwae", r"monitor=val/iwae: .* val/elbo"),
        ("model=ae monitor=val/elbo", r"monitor=val/elbo: .* val/recon"),
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("objective", sorted({*options("objective")} - {"semi_supervised", "recon"}))
def test_every_objective_makes_a_whole_run(run, objective, precision):
    folder, metrics = run(f"objective={objective}", f"trainer.precision={precision}", "trainer.max_epochs=1")
    assert all(isfinite(value) for value in metrics.values())
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"], rel=1e-6)
    assert ("test/iwae" in metrics) == (objective in ("iwae", "miwae", "ciwae", "piwae"))
    assert {path.name for path in (folder / "images").iterdir()} == {"elbo.png", "samples.png", "reconstructions.png"}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_every_model_makes_a_whole_run_on_every_learned_prior(run, model, prior):
    chosen = [f"model={model}", *([] if model in ("ae", "hvae") else [f"prior={prior}"]), "trainer.max_epochs=1"]
    folder, metrics = run(*chosen, "prior.pseudo_inputs=8" if "prior=vamp" in chosen else "test=true")
    assert all(isfinite(value) for value in metrics.values())
    assert ("test/kl" in metrics) == (model != "ae")
    assert ("test/error" in metrics) == (model == "m2")
    assert (folder / "images" / "classes.png").exists() == (model in OF_LABELS)
