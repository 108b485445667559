"""The ledger's means against one pass over all images."""

import pytest
import torch

from vae_exp.ledger import Ledger, Mean, NonFiniteError


def same(t):
    return t


@pytest.mark.parametrize("sizes", [[10], [4, 4, 2], [7, 1, 1, 1], [1] * 10])
def test_uneven_batches_give_the_mean_over_images(sizes):
    values = 100 * torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    values[-1] += 1e3  # the mean of the batch means is far off
    mean = Mean()
    for batch in values.split(sizes):
        mean.update(batch.sum(0), len(batch))
    torch.testing.assert_close(mean.compute(same), values.mean(0), rtol=1e-14, atol=0)


def test_float32_totals_are_summed_in_float64():
    mean = Mean()
    for _ in range(10_000):
        mean.update(torch.tensor([0.1]), 1)
    result = mean.compute(same)
    assert result.dtype == torch.float64
    # In float32 this sum is off by 1e-4 of its value.
    assert result.item() == pytest.approx(torch.tensor(0.1).item(), rel=1e-12)


def test_reduce_sums_over_processes_before_the_division():
    totals, images = torch.tensor([[6.0, 60.0], [1.0, 100.0]]), [3, 1]
    one, other = Mean(), Mean()
    one.update(totals[0], images[0])
    other.update(totals[1], images[1])
    result = one.compute(lambda state: state + other.sums)
    torch.testing.assert_close(result, torch.tensor([7 / 4, 160 / 4]).double(), rtol=1e-14, atol=0)


def test_holds_no_graph_and_starts_anew():
    mean = Mean()
    mean.update(torch.tensor([5.0], requires_grad=True), 1)
    assert not mean.compute(same).requires_grad
    mean.update(torch.tensor([8.0]), 2)
    assert mean.compute(same).tolist() == [4.0]
    with pytest.raises(RuntimeError, match="no images"):
        mean.compute(same)


# --- The ledger ---------------------------------------------------------------------------------------------------


def noted(*sizes, **terms):
    """A ledger of batches, in each the terms that are given over all images; its loss is the batch's mean recon."""
    ledger, start = Ledger("val"), 0
    for size in sizes:
        batch = {name: term[start : start + size] for name, term in terms.items()}
        ledger.note(batch, batch["recon"].mean(), f"batch {start}")
        start += size
    return ledger


def test_batches_count_by_their_images():
    recon, kl, error = torch.rand(3, 10)
    means = noted(6, 3, 1, recon=recon, kl=kl, error=error).compute(same)
    expected = {"elbo": -(recon + kl), "recon": recon, "kl": kl, "error": error, "loss": recon}
    assert means == {name: pytest.approx(term.mean().item(), rel=1e-6) for name, term in expected.items()}


def test_without_a_kl_there_is_no_elbo():
    assert set(noted(4, 4, recon=torch.rand(8)).compute(same)) == {"recon", "loss"}


def test_what_was_added_up_goes_on_elsewhere():
    recon, kl = torch.rand(2, 10)
    first, second = noted(6, recon=recon, kl=kl), noted(3, 1, recon=recon[6:], kl=kl[6:])
    first.add_up()
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    means, whole = second.compute(same), noted(6, 3, 1, recon=recon, kl=kl).compute(same)
    assert means == {name: pytest.approx(mean, rel=1e-12) for name, mean in whole.items()}


@pytest.mark.parametrize("term", ["recon", "kl", "mws"])
def test_a_term_that_is_no_number_is_named_with_its_batch(term):
    terms = {"recon": torch.rand(8), "kl": torch.rand(8), "mws": torch.rand(8)}
    terms[term][5] = torch.inf
    with pytest.raises(NonFiniteError, match=rf"val/loss is .* at batch 4: {term} is inf for 1 of 4 images"):
        noted(4, 4, **terms).add_up()


def test_an_objective_that_is_no_number_is_told_from_its_terms():
    ledger = Ledger("train")
    ledger.note({"recon": torch.rand(4)}, torch.tensor(torch.nan), "step 7")
    with pytest.raises(NonFiniteError, match="train/loss is nan at step 7: recon are finite, but the objective is not"):
        ledger.add_up()
