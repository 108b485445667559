"""Every option of every group composes, is built and takes a step, with every model; or says why it cannot."""

import inspect
from math import isfinite
from pathlib import Path

import pytest
import torch
from helpers.cases import cover
from helpers.runs import PICTURED, SMALL, composed, pictures
from hydra.core.hydra_config import HydraConfig

from vae_exp.config import CONF, ConfigError
from vae_exp.runs.build import bound, build, check_values
from vae_exp.training.trainer import make_trainer

UNLABELLED = ("frey_face", "binarized_mnist", "linear_gaussian", "celeba", "image_folder", "npz", "hub")
GREY = ("fashion_mnist", "frey_face", "cifar10", "fake", "svhn", "celeba", "image_folder", "npz", "hub")
OF_CHAINS = ("mcem", "persistent_mcem")
OF_LABELS = ("cvae", "m2")
DISCRETE = ("bernoulli", "categorical")
FACTORISED = ("diagonal_normal", "laplace")
OF_COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
ON_UNIT = ("bce", "discretized_logistic", "categorical_256", "continuous_bernoulli")
NOT_ON_REALS = ON_UNIT + OF_COUNTS
ANY = ("none", "vamp")  # priors of whatever event the posterior has
SMALL_IMAGE = ("data=fake", "data.image_shape=[1,8,8]", "latent_dim=4", "encoder.hidden=[8]", "decoder.hidden=[8]")

NARROW = {"mlp": "hidden=[8]", "conv": "channels=[4,8]", "resnet": "channels=[4,8]"}
OF_ROWS = ("table", "columns")  # tests/data/test_table.py


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONF) / group).glob("*.yaml") if path.stem not in OF_ROWS)


MODELS = options("model")


def take_a_step(model, data) -> None:
    x = torch.rand(4, *data.image_shape)
    x = x.bernoulli() if data.representation.is_bits else x
    y = torch.arange(4) % (data.num_classes or 1)
    optimizer = model.configure_optimizers()
    before = [parameter.clone() for parameter in model.parameters()]
    loss, draw = model.objective(model, x, y, model.step)
    # Before the step, as in training: the first steps of radam are as long as the gradient.
    assert loss.isfinite()
    assert all(term.shape == (4,) and term.isfinite().all() for term in draw.terms.values())
    loss.backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# Who does not go together, and what a user is told of it. Of several rules that apply the first one speaks.
RULES = (
    ("Ways out: model=vae", lambda model, data: model in OF_LABELS and data in UNLABELLED),
    ("choose model=vae", lambda model, objective: model == "beta_vae" and objective != "beta_elbo"),
    ("choose model=cvae", lambda model, objective: model == "m2" and objective != "semi_supervised"),
    ("leave prior=none objective=recon", lambda model, objective: model == "ae" and objective != "recon"),
    ("leave prior=none objective=recon", lambda model, prior: model == "ae" and prior != "none"),
    (r"Ways out: data\.binarize=dynamic", lambda likelihood, data: likelihood in ("bce", *OF_COUNTS) and data in GREY),
    ("the data are real numbers", lambda likelihood, data: likelihood in NOT_ON_REALS and data == "linear_gaussian"),
    ("choose likelihood=gaussian_shared", lambda model, likelihood: model == "m2" and likelihood == "sigma_vae"),
    ("Ways out: posterior=bottom_up", lambda model, posterior: model == "hvae" and posterior != "bottom_up"),
    ("prior=none has no kl", lambda model, prior: model != "ae" and prior == "none"),
    ("prior gives shape", lambda posterior, prior: posterior == "bottom_up" and prior not in (*ANY, "top_down")),
    ("prior gives shape", lambda posterior, prior: posterior != "bottom_up" and prior == "top_down"),
    ("prior is over .* posterior", lambda posterior, prior: posterior in DISCRETE and prior not in (*ANY, posterior)),
    ("prior is over .* the posterior over", lambda posterior, prior: prior in DISCRETE and posterior != prior),
    ("decoder", lambda model, posterior: model != "hvae" and posterior == "bottom_up"),
    ("choose model=m2", lambda model, objective: model != "m2" and objective == "semi_supervised"),
    ("for discrete ones: choose", lambda posterior, objective: posterior in DISCRETE and objective in OF_CHAINS),
    ("choose objective=mcem", lambda model, objective: model == "hvae" and objective == "persistent_mcem"),
    ("have no pathwise gradient", lambda posterior, objective: posterior in DISCRETE and objective != "wake_sleep"),
    ("needs a fixed density", lambda likelihood, objective: likelihood == "sigma_vae" and objective in OF_CHAINS),
    ("apart from the encoder", lambda prior, objective: prior == "vamp" and objective in ("wake_sleep", *OF_CHAINS)),
    ("no density|closed form|factorises", lambda posterior, prior: posterior == "point" and prior != "none"),
    ("closed form", lambda prior, objective: objective == "free_bits" and prior != "standard_normal"),
    ("closed form", lambda posterior, objective: objective == "free_bits" and posterior not in FACTORISED),
    ("factorises", lambda posterior, objective: objective == "beta_tcvae" and posterior not in FACTORISED),
    ("mean and covariance", lambda posterior, objective: objective == "dip" and posterior in ("flow", "bottom_up")),
)  # fmt: skip


GROUPS_OF_RULES = [tuple(inspect.signature(rule).parameters) for _, rule in RULES]


def why_not(row):
    """What a user may be told of parts that do not go together, as far as they are chosen: one of these."""
    broken = []
    for (said, rule), (a, b) in zip(RULES, GROUPS_OF_RULES, strict=True):
        if a in row and b in row and rule(row[a], row[b]):
            broken.append(said)
    return broken


def fits(row):
    return not why_not(row)


PARTS = (
    "model",
    "objective",
    "posterior",
    "prior",
    "likelihood",
    "data",
    "encoder",
    "decoder",
    "corruption",
    "init",
    "optimizer",
)
COLUMNS = {group: options(group) for group in PARTS}
ROWS, APART = cover(COLUMNS, fits)
# The first rows that together hold every option once.
SEEN: set = set()
ONCE = [row for row in ROWS if not row.items() <= SEEN and SEEN.update(row.items()) is None]
# Of each rule the first pair that breaks it, in rows that are else as they come.
BROKEN = []
for (_, rule), (a, b) in zip(RULES, GROUPS_OF_RULES, strict=True):
    BROKEN.append(next(((a, x), (b, y)) for x in COLUMNS[a] for y in COLUMNS[b] if rule(x, y)))


def written(chosen):
    return " ".join(f"{group}={option}" for group, option in dict(chosen).items())


def fast_and_slow(fast, slow):
    """Both as cases of a test, named by what they choose."""
    return [
        *(pytest.param(case, id=written(case)) for case in fast),
        *(pytest.param(case, id=written(case), marks=pytest.mark.slow) for case in slow),
    ]


@pytest.mark.parametrize("row", fast_and_slow(ONCE, [row for row in ROWS if row not in ONCE]))
def test_options_that_go_together_take_a_step(row):
    """Fast: every option; slow: every two options."""
    narrow = [f"{part}.{NARROW[row[part]]}" for part in ("encoder", "decoder") if row[part] in NARROW]
    # Of files of a user's own nobody knows how many there are, and beta_tcvae needs to.
    size = ["data.train_size=64"] if row["data"] in ("image_folder", "npz", "hub") else []
    # A chain of one short move: its length is no part of what goes together.
    short = ["objective.transitions=1", "objective.leapfrog=2"] if row["objective"] == "mcem" else []
    take_a_step(*build(composed(*written(row).split(), *narrow, *size, *short, "latent_dim=4")))


@pytest.mark.parametrize("pair", fast_and_slow(BROKEN, APART))
def test_of_options_that_do_not_go_together_it_is_told_why(pair):
    """Fast: one pair for each reason; slow: every pair."""
    cfg = composed(*written(pair).split(), *(() if "data" in dict(pair) else SMALL_IMAGE))
    said = why_not(HydraConfig.get().runtime.choices)
    with pytest.raises(ConfigError, match="|".join(said)):
        build(cfg)


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
@pytest.mark.parametrize("data", ["fashion_mnist", "frey_face", "cifar10", "fake", "npz"])
def test_grey_and_colour_sets_choose_their_likelihood_visibly_and_give_way(data):
    assert composed(f"data={data}").likelihood._target_ == "vae_exp.likelihoods.GaussianShared"
    chosen = composed(f"data={data}", "likelihood=bce", "data.binarize=dynamic")
    assert chosen.likelihood._target_ == "vae_exp.likelihoods.Bernoulli"
    build(chosen)


@pytest.mark.parametrize(
    "data", ["celeba", "cifar10", "fake", "fashion_mnist", "frey_face", "image_folder", "npz", "svhn"]
)
def test_grey_and_colour_images_have_a_learned_scale_and_a_mean_where_pixels_are(data):
    model, _ = build(composed(f"data={data}", "data.image_shape=[1,8,8]", "data.num_classes=null"))
    assert [name for name, _ in model.likelihood.named_parameters()] == ["log_scale"]
    mean = model.likelihood(100 * torch.randn(5, 1, 8, 8)).mean
    assert mean.min() >= 0
    assert mean.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "sigma_vae"])
def test_real_numbers_have_a_mean_anywhere(likelihood):
    model, _ = build(composed("data=linear_gaussian", f"likelihood={likelihood}"))
    params = 100 * torch.randn(5, model.likelihood.params_per_pixel, 4, 4)
    torch.testing.assert_close(model.likelihood(params).mean, params[:, :1])


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        (("data=mnist",), 20),
        (("data=frey_face",), 167),  # of 15 batches each
        (("data=frey_face", "data.batch_size=10"), 20),
        (("data=frey_face", "trainer.max_epochs=3"), 3),
        (("data=image_folder",), 20),  # of how many images is not known
        (("data=image_folder", "data.train_size=300"), 1250),
    ],
)
def test_a_small_set_is_trained_for_as_many_steps_as_a_model_needs(overrides, epochs):
    assert composed(*overrides).trainer.max_epochs == epochs


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


@pytest.mark.slow
@pytest.mark.parametrize("net", options("encoder"))
def test_networks_fit_any_image_without_an_edit(net):
    shape = [1, 9, 13]
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
        ("data=fake decoder.output_bias=mean", r"decoder\.output_bias=mean: .* choose decoder\.output_bias=mean_logit"),
        ("data=fake likelihood.mean=tanh", r"likelihood\.mean=tanh"),
        ("data=linear_gaussian likelihood=gaussian likelihood.mean=sigmoid", r"likelihood\.mean=sigmoid"),
        ("encoder.hidden=3", "encoder"),
        ("+encoder.foo=3", "encoder"),
        ("likelihood._target_=vae_exp.likelihoods.Nothing", "likelihood"),
        ("objective.num_samples=0", r"objective\.num_samples=0"),
        ("+schedule@objective.num_samples=linear", r"objective\.num_samples: a count cannot be a schedule"),
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


@pytest.mark.parametrize(
    ("chosen", "monitor", "mode"),
    [
        ("", "val/elbo", "max"),
        ("objective=wake_sleep", "val/elbo", "max"),
        ("model=beta_vae", "val/elbo", "max"),
        ("model=m2", "val/elbo", "max"),
        ("model=ae", "val/recon", "min"),
        *[(f"objective={name}", "val/iwae", "max") for name in ("iwae", "miwae", "ciwae", "piwae")],
        ("objective._target_=helpers.objectives.Own", "val/kl", "max"),
        ("objective._target_=helpers.objectives.Nothing", "val/elbo", "max"),
        ("objective=iwae monitor=val/elbo", "val/elbo", "max"),
        ("monitor=val/recon", "val/recon", "min"),
        ("model=m2 monitor=val/error", "val/error", "min"),
        ("monitor=val/kl monitor_mode=min", "val/kl", "min"),
    ],
)
def test_the_objective_says_what_to_monitor_and_the_command_line_wins(chosen, monitor, mode):
    cfg = composed(*chosen.split())
    for node in (cfg, cfg.callbacks.best, cfg.callbacks.early_stopping):
        assert node.monitor == monitor
    assert cfg.monitor_mode == cfg.callbacks.best.mode == cfg.callbacks.early_stopping.mode == mode


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
    folder, metrics = run(
        f"objective={objective}", f"trainer.precision={precision}", "trainer.max_epochs=1", small=PICTURED
    )
    assert all(isfinite(value) for value in metrics.values())
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/recon"] - metrics["test/kl"], rel=1e-6)
    assert ("test/iwae" in metrics) == (objective in ("iwae", "miwae", "ciwae", "piwae"))
    assert pictures(folder) == {"elbo", "samples", "reconstructions"}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_every_model_makes_a_whole_run_on_every_learned_prior(run, model, prior):
    chosen = [f"model={model}", *([] if model in ("ae", "hvae") else [f"prior={prior}"]), "trainer.max_epochs=1"]
    folder, metrics = run(*chosen, "prior.pseudo_inputs=8" if "prior=vamp" in chosen else "test=true", small=PICTURED)
    assert all(isfinite(value) for value in metrics.values())
    assert ("test/kl" in metrics) == (model != "ae")
    assert ("test/error" in metrics) == (model == "m2")
    assert ("classes" in pictures(folder)) == (model in OF_LABELS)
