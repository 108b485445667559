"""Real digits, clothes and faces: read, trained on, scored."""

import pytest
from helpers.runs import composed, pictures

from vae_exp.training.job import train

pytestmark = [pytest.mark.data, pytest.mark.slow]


def three_epochs(folder, root, model, seed):
    cfg = composed(
        f"model={model}", f"seed={seed}", f"data.root={root}", "trainer=cpu", "trainer.max_epochs=3", "logger=csv",
        "trainer.enable_progress_bar=false",
    )  # fmt: skip
    return train(cfg, folder)["test/elbo"]


def test_three_epochs_on_mnist_reach_a_known_bound(tmp_path, real_data):
    """784-500-500-20-500-500-784, batch 128, Adam 1e-3, dynamic bits; the label is worth at least a nat to a CVAE."""
    vae, cvae = (
        sum(three_epochs(tmp_path / f"{model}{seed}", real_data, model, seed) for seed in (0, 1)) / 2
        for model in ("vae", "cvae")
    )
    assert vae > -116
    assert cvae > vae + 1


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "binarized_mnist", "frey_face"])
@pytest.mark.parametrize("nets", ["mlp", "conv"])
def test_each_real_set_trains(tmp_path, real_data, data, nets):
    cfg = composed(
        f"data={data}", f"data.root={real_data}", f"encoder={nets}", f"decoder={nets}", "trainer=debug", "logger=csv",
        "trainer.limit_train_batches=12", "trainer.enable_progress_bar=false",
    )  # fmt: skip
    metrics = train(cfg, tmp_path)
    first = float((tmp_path / "metrics.csv").read_text().splitlines()[1].split(",")[1])
    assert metrics["train/elbo"] > first
    assert "reconstructions" in pictures(tmp_path)
