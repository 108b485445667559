"""The ledger's means against one pass over all images."""

import pytest
import torch

from vae_exp.ledger import Mean


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
