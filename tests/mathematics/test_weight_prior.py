"""A prior on the weights: the gradient of `loss - log p(weights) / N`, and what is logged without it."""

import pytest
import torch
from helpers.runs import SMALL, composed
from torch.distributions import Normal

from vae_exp.config import ConfigError
from vae_exp.runs.build import build, check_values


def step_of(*words):
    """Weights before and after a step of plain gradient descent of rate 1, and the gradient of the loss."""
    torch.manual_seed(0)
    cfg = composed(*SMALL, "optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", *words)
    check_values(cfg)
    model, data = build(cfg)
    x, y = torch.rand(16, *data.image_shape), torch.zeros(16, dtype=torch.long)
    optimizer = model.configure_optimizers()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch.manual_seed(1)
    loss, _ = model.objective(model, x, y, model.step)
    loss.backward()
    slopes = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    return loss.item(), before, slopes, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize(("words", "size"), [((), 48), (("data.train_limit=32",), 32)])
@pytest.mark.parametrize("std", [0.5, 2.0])
def test_a_step_follows_the_loss_minus_the_log_prior_over_n(words, size, std):
    loss, before, slopes, after = step_of(f"weight_prior={std}", *words)
    for weight, slope, moved in zip(before, slopes, after, strict=True):
        weight.requires_grad_()
        (of_prior,) = torch.autograd.grad(Normal(0, std).log_prob(weight).sum(), weight)
        torch.testing.assert_close(moved, weight - slope + of_prior / size)
    assert loss == step_of(*words)[0]  # what is logged is that without a prior


def test_without_one_nothing_changes():
    assert composed(*SMALL).optimizer.weight_decay == 0
    _, before, slopes, after = step_of()
    for weight, slope, moved in zip(before, slopes, after, strict=True):
        torch.testing.assert_close(moved, weight - slope, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adagrad", "radam"])
def test_every_optimizer_but_adamw_takes_it(name):
    cfg = composed("weight_prior=0.1", f"optimizer={name}", "data.train_limit=1000")
    check_values(cfg)
    assert cfg.optimizer.weight_decay == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("optimizer=adamw",), "weight_prior=1.0 needs .* it is 0.01 of torch.optim.AdamW"),
        (("optimizer=radam", "optimizer.decoupled_weight_decay=true"), "Ways out: optimizer=adam"),
        (("optimizer.weight_decay=0.1",), "needs optimizer.weight_decay=0.0208"),
        (("data.train_size=null",), "how many training images"),
    ],
)
def test_what_would_be_no_prior_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        check_values(composed(*SMALL, "weight_prior=1.0", *words))
