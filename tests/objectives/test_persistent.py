"""Monte Carlo EM with a chain for each training image: what the chains become, who learns from them, who sees what."""

import pytest
import torch
from helpers.linear import Affine, Flat, exact, make
from helpers.runs import SMALL, composed, curve, resume

from vae_exp.config import ConfigError
from vae_exp.data import Batches, Split
from vae_exp.objectives import PersistentMCEM
from vae_exp.posteriors import FullNormal
from vae_exp.runs.build import build, check_values

N, LATENTS = 4, 2


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_linear(**options):
    objective = PersistentMCEM(**{"train_size": 3000, "latent_dim": LATENTS, "updates": 1} | options)
    return make(Flat(N, N), Affine(LATENTS, N), objective, posterior=FullNormal(N, LATENTS))


def step(model, x, rows, number=0):
    return model.objective(model, x, None, torch.tensor(number), rows)


def test_chains_come_to_the_true_posterior_with_the_acceptance_asked_for():
    """Of one image, 3,000 times: batches of 500, which all have moved 12 times."""
    model, one = make_linear(step_size=0.02, leapfrog=4), torch.randn(1, 1, 1, N).double()
    _, true = exact(model, one)
    for number in range(72):
        rows = torch.arange(500) + 500 * (number % 6)
        _, draw = step(model, one.expand(500, -1, -1, -1), rows)
    assert draw.extras["hmc_acceptance"].mean().item() == pytest.approx(0.9, abs=0.05)
    chains = model.objective.chains
    error = true.variance[0].sqrt() / 3000**0.5
    assert ((chains.mean(dim=0) - true.mean[0]).abs() < 4.5 * error).all()
    torch.testing.assert_close(torch.cov(chains.T), true.covariance_matrix[0], rtol=0.15, atol=0.02)


def test_the_gradient_at_the_chains_is_that_of_log_p_of_x():
    """`d log p(x) = E d log p(x, z)` over the posterior (Fisher); by finite differences of the closed form."""
    model, one = make_linear(), torch.randn(1, 1, 1, N).double()
    _, true = exact(model, one)
    model.objective.chains.copy_(true.sample((3000,))[:, 0])
    loss, _ = step(model, one.expand(3000, -1, -1, -1), torch.arange(3000))
    (slope,) = torch.autograd.grad(loss, model.decoder.bias)
    for place in range(N):
        values = []
        for shift in (1e-4, -1e-4):
            with torch.no_grad():
                model.decoder.bias[place] += shift
            values.append(exact(model, one)[0].item())
            with torch.no_grad():
                model.decoder.bias[place] -= shift
        assert -slope[place].item() == pytest.approx((values[0] - values[1]) / 2e-4, abs=0.15)


def test_the_decoder_learns_nothing_from_the_encoder():
    def slopes(factor):
        torch.manual_seed(1)
        model = make_linear()
        with torch.no_grad():
            model.encoder.weight.mul_(factor)
        loss, _ = step(model, torch.ones(7, 1, 1, N).double(), torch.arange(7))
        return torch.autograd.grad(loss, [model.decoder.weight, model.encoder.weight])

    one, other = slopes(1), slopes(3)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_chains_of_the_images_of_the_batch_move_once_in_updates_steps():
    model, x = make_linear(updates=3), torch.randn(5, 1, 1, N).double()
    rows, before = torch.tensor([4, 1, 7, 9, 2]), model.objective.chains.clone()
    step(model, x, rows, number=3)
    moved = model.objective.chains.clone()
    assert set((moved != before).any(dim=1).nonzero().flatten().tolist()) <= set(rows.tolist())
    assert (moved != before).any()
    for number in (4, 5):
        step(model, x, rows, number)
        assert torch.equal(moved, model.objective.chains)
    step(model, x, rows, 6)
    assert not torch.equal(moved, model.objective.chains)


def test_batches_come_several_times_with_the_same_bits_and_the_numbers_of_their_images():
    split = Split(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(40, dtype=torch.long))

    def batches(position=0, repeats=3):
        made = Batches(split, 8, True, 0, view=lambda x: x + 100 * torch.rand(x.shape), drop_last=True)
        made.gives_rows, made.repeats, made.position = True, repeats, position
        noise = []
        found = []
        for x, _, rows in made:
            found.append((x, rows))
            noise.append(torch.rand(1).item())
        return found, noise

    found, noise = batches()
    assert len(found) == 15
    assert len(set(noise)) == 15
    for start in range(0, 15, 3):
        x, rows = found[start]
        assert torch.equal(torch.floor(x.flatten() - rows).clamp(0, 100) >= 0, torch.ones(8, dtype=torch.bool))
        for again, same in found[start : start + 3]:
            assert torch.equal(x, again)
            assert torch.equal(rows, same)
    assert sorted(torch.cat([rows for _, rows in found[::3]]).tolist()) == list(range(40))
    later, later_noise = batches(position=7)  # resumed within the repeats
    assert later_noise == noise[7:]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(later, found[7:], strict=True))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.train_size=null",), "set data.train_size"),
        (("model=hvae",), "keeps chains of 3 latents, this model has"),
        (("posterior=bernoulli",), "impossible for discrete ones"),
        (("likelihood=sigma_vae",), "needs a fixed density"),
        (("objective.acceptance=1",), r"objective\.acceptance=1"),
        (("objective.updates=0",), r"objective\.updates=0"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        build(composed(*SMALL, "objective=persistent_mcem", *words))


def test_an_epoch_has_so_many_more_batches_to_validate_between():
    words = (*SMALL, "objective=persistent_mcem")  # 3 batches of 16, each 5 times
    check_values(composed(*words, "trainer.val_check_interval=15"))
    with pytest.raises(ConfigError, match="an epoch has 15 batches"):
        check_values(composed(*words, "trainer.val_check_interval=16"))


def test_a_run_that_was_cut_off_goes_on_to_the_bit(run):
    """At the end of an epoch, and among the repeats of a batch."""
    words = ("objective=persistent_mcem", "objective.updates=3", "callbacks.last.every_n_steps=4", "test=false")
    whole, _ = run(*words, folder="whole")
    part, _ = run(*words, "trainer.max_epochs=1", folder="part")
    resume(part, trainer__max_epochs=2)
    states = [torch.load(each / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for each in (whole, part)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert "objective.chains" in states[0]
    assert curve(part) == curve(whole)
    assert len(curve(whole)) >= 18  # 3 batches of 16, each 3 times, in 2 epochs
