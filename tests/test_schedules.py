"""Schedules: their values, objectives that follow them, and runs that go on with them."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.linear import Affine, Flat
from helpers.runs import ROOT, composed, curve, resume
from omegaconf import OmegaConf
from torch.fx.experimental.proxy_tensor import make_fx

from vae_exp import likelihoods
from vae_exp.models import VAE
from vae_exp.objectives import (
    CIWAE,
    DIP,
    ELBO,
    MMD,
    BetaELBO,
    BetaTCVAE,
    Capacity,
    FreeBits,
)
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal
from vae_exp.runs.build import build
from vae_exp.schedules import Constant, Cyclical, Exponential, Linear, Piecewise, Warmup, at, check

N, D = 4, 2

VALUES = {
    "constant": (Constant(3.0), {0: 3.0, 7: 3.0, 10**9: 3.0}),
    "linear": (Linear(1.0, 5.0, 4), {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0, 5: 5.0, 10**9: 5.0}),
    "falling": (Linear(4.0, 0.0, 8), {0: 4.0, 1: 3.5, 7: 0.5, 8: 0.0, 9: 0.0}),
    "one_step": (Linear(1.0, 2.0, 1), {0: 1.0, 1: 2.0, 2: 2.0}),
    "cyclical": (Cyclical(0.0, 1.0, 8), {0: 0.0, 1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0, 7: 1.0, 8: 0.0, 9: 0.25, 15: 1.0}),
    "saw": (Cyclical(2.0, 4.0, 4, rise=1.0), {0: 2.0, 1: 2.5, 3: 3.5, 4: 2.0, 4_000_003: 3.5}),
    "quarter": (Cyclical(0.0, 3.0, 10, rise=0.3), {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, 9: 3.0, 10: 0.0, 12: 2.0}),
    "exponential": (Exponential(16.0, 1.0, 4), {0: 16.0, 1: 8.0, 2: 4.0, 3: 2.0, 4: 1.0, 5: 1.0, 10**9: 1.0}),
    "growing": (Exponential(1e-3, 1e-1, 4), {0: 1e-3, 2: 1e-2, 4: 1e-1, 6: 1e-1}),
    "piecewise": (Piecewise([3.0, 0.1, 2.0], [2, 5]), {0: 3.0, 1: 3.0, 2: 0.1, 4: 0.1, 5: 2.0, 10**9: 2.0}),
    "one_piece": (Piecewise([3.0], []), {0: 3.0, 10**9: 3.0}),
    "warmup": (Warmup(4, 8.0), {0: 2.0, 1: 4.0, 2: 6.0, 3: 8.0, 4: 8.0, 10**9: 8.0}),
    "warm_then_falling": (Warmup(2, Linear(4.0, 0.0, 4)), {0: 2.0, 1: 3.0, 2: 2.0, 4: 0.0, 9: 0.0}),
    "negative": (Exponential(-1.0, -4.0, 2), {0: -1.0, 1: -2.0, 2: -4.0}),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("schedule", VALUES)
def test_values(schedule):
    schedule, expected = VALUES[schedule]
    for step, value in expected.items():
        for given in (step, torch.tensor(step)):
            assert float(schedule(given)) == pytest.approx(value, rel=1e-6)
            assert float(at(schedule, given)) == pytest.approx(value, rel=1e-6)
        if not isinstance(schedule, Constant):
            result = schedule(torch.tensor(step))
            assert result.shape == ()
            assert result.dtype == torch.float32
    assert [float(schedule(step)) for step in expected] == pytest.approx(list(expected.values()))  # they keep nothing


def test_a_number_is_its_own_schedule():
    assert at(2.5, 3) == at(2.5, torch.tensor(3)) == 2.5


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (partial(Linear, 0, 1, 0), "steps=0"),
        (partial(Exponential, 1, 2, -1), "steps=-1"),
        (partial(Cyclical, 0, 1, 0), "period=0"),
        (partial(Cyclical, 0, 1, 5, 0.0), "rise=0.0"),
        (partial(Cyclical, 0, 1, 5, 1.5), "rise=1.5"),
        (partial(Exponential, 0.0, 1.0, 5), "start=0.0, end=1.0"),
        (partial(Exponential, 1.0, -1.0, 5), "start=1.0, end=-1.0"),
        (partial(Piecewise, [1.0, 2.0], []), "2 values need 1 steps"),
        (partial(Piecewise, [1.0, 2.0, 3.0], [5, 5]), r"at_steps=\[5, 5\]"),
        (partial(Piecewise, [1.0, 2.0], [0]), r"at_steps=\[0\]"),
        (partial(Warmup, 0, 1.0), "steps=0"),
        (partial(BetaELBO, Warmup(3, Piecewise([1.0, -1.0], [4]))), r"objective\.beta=-1.0"),
        (partial(BetaELBO, Linear(0.0, -1.0, 5)), r"objective\.beta=-1.0"),
        (partial(BetaELBO, Constant(-2.0)), r"objective\.beta=-2.0"),
        (partial(BetaELBO, Cyclical(-1.0, 1.0, 5)), r"objective\.beta=-1.0"),
        (partial(CIWAE, 2, Linear(0.0, 1.5, 5)), r"objective\.beta=1.5: .*at most 1"),
        (partial(CIWAE, 2, 1.5), r"objective\.beta=1.5: .*at most 1"),
        (partial(MMD, Linear(0.0, 2.0, 5), 1.0), r"objective\.alpha=2.0"),
        (partial(Capacity, 1.0, Linear(-1.0, 5.0, 5)), r"objective\.capacity=-1.0"),
        (partial(FreeBits, -0.1), r"objective\.free=-0.1"),
    ],
)
def test_what_makes_no_sense_is_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_a_function_of_ones_own_is_taken_as_it_is():
    assert check("objective.beta", abs) is abs


def test_the_learning_rate_of_burda_and_others_as_the_documentation_has_it():
    """3^(i-1) epochs at 1e-4 round(10^(1-(i-1)/7), 1), i = 1..8, each of 2,980 steps on 59,600 images."""
    page = (ROOT / "docs" / "protocols.md").read_text()
    words = re.search(r"(\+schedule@optimizer.lr=piecewise.*?)```", page, re.DOTALL)[1]
    model, _ = build(composed(*[word.strip("'\\") for word in words.split() if word != "\\"]))
    optimizers = model.configure_optimizers()
    rate = optimizers["lr_scheduler"]["scheduler"].lr_lambdas[0]
    start = 0
    for i in range(8):
        expected = 1e-4 * round(10 ** (1 - i / 7), 1)
        end = start + 2980 * 3**i
        assert rate(start) == pytest.approx(expected, rel=1e-6)
        assert rate(end - 1) == pytest.approx(expected, rel=1e-6)
        start = end
    assert start == 9_774_400


# --- Objectives -------------------------------------------------------------------------------------------------


MC = {"num_samples": 2, "kl": "monte_carlo"}
RISING, FALLING = Linear(0.25, 0.75, 4), Exponential(0.9, 0.1, 4)
SCHEDULED = {
    "beta": BetaELBO,
    "beta_monte_carlo": lambda a: BetaELBO(a, **MC),
    "beta_stl": lambda a: BetaELBO(a, **MC, estimator="stl"),
    "beta_score_function": lambda a: BetaELBO(a, **MC, estimator="score_function", baseline=True),
    "ciwae": lambda a: CIWAE(3, a),
    "ciwae_dreg": lambda a: CIWAE(3, a, "dreg"),
    "gamma": lambda a: Capacity(a, 2.0),
    "capacity": lambda a: Capacity(3.0, a),
    "free": FreeBits,
    "tc": lambda a: BetaTCVAE(a, 100, alpha=a, gamma=a),
    "dip": lambda a: DIP(2, a, 1.0),
    "dip_diagonal": lambda a: DIP(1, 1.0, a),
    "mmd": lambda a: MMD(a, 2.0),
    "mmd_weight": lambda a: MMD(0.5, a),
}
scheduled = pytest.mark.parametrize("objective", SCHEDULED.values(), ids=SCHEDULED)


def make():
    model = VAE(Flat(N, 5), Affine(D, N), DiagonalNormal(5, D), StandardNormal(D), likelihoods.Normal(0.5), ELBO())
    return model.double(), torch.randn(6, 1, 1, N).double()


def score(objective, model, x, step):
    """Loss and gradients, always of the same noise."""
    torch.manual_seed(1)
    model.zero_grad()
    loss, _ = objective(model, x, None, step)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@scheduled
@pytest.mark.parametrize("schedule", [RISING, FALLING], ids=["rising", "falling"])
def test_a_scheduled_objective_is_that_of_the_number_at_the_step(objective, schedule):
    model, x = make()
    for step in (0, 1, 3, 4, 9):
        expected = score(objective(float(schedule(step))), model, x, torch.tensor(step))
        torch.testing.assert_close(
            score(objective(schedule), model, x, torch.tensor(step)), expected, rtol=1e-5, atol=1e-5
        )
        assert not torch.equal(score(objective(0.5123), model, x, torch.tensor(step))[0], expected[0])


@scheduled
def test_a_recorded_step_follows_its_schedule(objective):
    """A graph replays what was done with the step's tensor; a number of Python's would be a part of it."""
    model, x = make()
    model.requires_grad_(False)
    objective = objective(RISING)

    def loss(step):
        return objective(model, x, None, step)[0]

    def replay(graph, step):
        torch.manual_seed(1)
        return graph(torch.tensor(step))

    follows, fixed = make_fx(loss)(torch.tensor(0)), make_fx(lambda step: loss(0) + 0 * step)(torch.tensor(0))
    values = [replay(loss, step) for step in (0, 2, 7)]
    assert len({value.item() for value in values}) == 3
    torch.testing.assert_close([replay(follows, step) for step in (0, 2, 7)], values)
    torch.testing.assert_close([replay(fixed, step) for step in (0, 2, 7)], values[:1] * 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_step_follows_its_schedule(backend):
    model, x = make()
    objective = BetaELBO(RISING)

    def loss(step):
        torch.manual_seed(1)
        z = model.encode(x).mean
        draw = model.draw(x, z=z[None])
        return (draw.recon + at(objective.beta, step) * draw.kl).mean()

    compiled = torch.compile(loss, backend=backend)
    values = [loss(torch.tensor(step)) for step in (0, 2, 7)]
    torch.testing.assert_close([compiled(torch.tensor(step)) for step in (0, 2, 7)], values)
    assert len({value.item() for value in values}) == 3


# --- Runs -------------------------------------------------------------------------------------------------------

BETA = (
    "+schedule@objective.beta=linear", "objective=beta_elbo", "objective.beta.start=0.5", "objective.beta.end=4.5",
    "objective.beta.steps=8", "test=true",
)  # fmt: skip


def beta_of(row, stage):
    """What the KL was multiplied by."""
    loss, recon, kl = (float(row[f"{stage}/{name}"]) for name in ("loss", "recon", "kl"))
    return (loss - recon) / kl


def assert_betas(folder):
    """Of three steps an epoch; validated by the beta of the step before."""
    rows = curve(folder)
    betas = {int(row["step"]): beta_of(row, "train") for row in rows if row.get("train/loss")}
    assert betas == {step: pytest.approx(min(0.5 + 0.5 * step, 4.5), abs=1e-3) for step in range(12)}
    validated = {int(row["step"]): beta_of(row, "val") for row in rows if row.get("val/loss")}
    assert validated == {step: pytest.approx(0.5 + 0.5 * min(step, 8), abs=1e-3) for step in (2, 5, 8, 11)}


@pytest.mark.slow
def test_a_scheduled_beta_of_a_run_and_of_a_resumed_one(run):
    whole, metrics = run(*BETA, "trainer.max_epochs=4", folder="whole")
    assert_betas(whole)
    part, _ = run(*BETA, "trainer.max_epochs=2", folder="part")
    resume(part, trainer__max_epochs=4)
    assert_betas(part)
    assert curve(part) == curve(whole)
    # The test is by the best checkpoint, at its own step.
    state = torch.load(whole / "checkpoints" / "best.ckpt", weights_only=True)
    tested = (metrics["test/loss"] - metrics["test/recon"]) / metrics["test/kl"]
    assert tested == pytest.approx(0.5 + 0.5 * min(state["global_step"] - 1, 8), abs=1e-3)
    assert state["state_dict"]["step"] == state["global_step"] - 1


LR = ("+schedule@optimizer.lr=exponential", "optimizer.lr.start=0.01", "optimizer.lr.end=0.0001", "test=false")


@pytest.mark.slow
def test_a_scheduled_learning_rate_of_a_run_and_of_a_resumed_one(run):
    options = (*LR, "optimizer.lr.steps=20")
    schedule = Exponential(0.01, 0.0001, 20)

    def assert_rate(folder, steps):
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert state["global_step"] == steps
        (group,) = state["optimizer_states"][0]["param_groups"]
        assert float(group["lr"]) == pytest.approx(0.01 * 0.01 ** (steps / 20), rel=1e-5)
        assert float(group["lr"]) == pytest.approx(float(schedule(steps)))

    whole, _ = run(*options, "trainer.max_epochs=4", folder="whole")
    assert_rate(whole, 12)
    part, _ = run(*options, "trainer.max_epochs=2", folder="part")
    assert_rate(part, 6)
    resume(part, trainer__max_epochs=4)
    assert_rate(part, 12)
    assert curve(part) == curve(whole)
    assert OmegaConf.load(part / "config.yaml").optimizer.lr.start == 0.01


def test_every_step_is_made_with_the_rate_of_its_schedule():
    """Adam with betas of zero moves each weight by lr * sign(gradient)."""
    model, x = make()
    schedule = Linear(0.1, 0.5, 4)
    model.optimizer = partial(torch.optim.Adam, lr=schedule, betas=(0.0, 0.0), eps=0.0)
    made = model.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.5):
        before = model.decoder.bias.detach().clone()
        made["optimizer"].zero_grad()
        model.objective(model, x, None, model.step)[0].backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
        moved = (model.decoder.bias - before).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-5, atol=0)


def test_a_resumed_rate_lies_where_a_captured_step_reads_it():
    """Lightning loads it to the CPU, where a fused optimizer takes it for a number."""
    model, _ = make()
    model.to("meta")
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
    model._trainer = SimpleNamespace(optimizers=[optimizer])
    model.on_train_start()
    assert optimizer.param_groups[0]["lr"].device.type == "meta"
