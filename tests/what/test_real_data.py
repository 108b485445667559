"""Every `what` on real images: MNIST by levels turned into bits, static MNIST, Frey faces."""

import pytest
import torch
from helpers.runs import OF_PICTURES, composed, generated

from vae_exp.config import NoMeaningError
from vae_exp.runs.trained import restore
from vae_exp.training.job import train

SMALL = """
encoder.hidden=[32] encoder.out_features=32 decoder.hidden=[32] latent_dim=2 trainer.accelerator=cpu logger=csv
trainer.max_epochs=1 trainer.limit_train_batches=20 trainer.log_every_n_steps=10 trainer.enable_progress_bar=false
callbacks.pictures=null callbacks.curves=null report=false
"""
OPTIONS = {
    "anomalies": ("num_images=100",),
    "denoise": ("corruption=gaussian", "num_images=50"),
    "embeddings": ("num_images=200",),
    "inpaint": ("num_images=4", "num_steps=5", "num_samples=10"),
}
REFUSED = {
    "mnist": {"classes", "pseudo_inputs"},
    "binarized_mnist": {"classes", "pseudo_inputs", "edit"},  # no labels
    "frey_face": {"classes", "pseudo_inputs", "edit"},
}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("data", REFUSED)
def test_every_what_is_made_of_real_images(tmp_path, real_data, data):
    chosen = (f"data={data}", f"data.root={real_data}", *SMALL.split())
    train(composed(*chosen, *(["data.batch_size=50"] if data == "frey_face" else [])), tmp_path)
    refused = set()
    for what in OF_PICTURES:
        try:
            generated(tmp_path, what, *OPTIONS.get(what, ()))
            assert (tmp_path / "images" / what / f"{what}.png").stat().st_size > 5000
        except NoMeaningError:
            refused.add(what)
    assert refused == REFUSED[data]


@pytest.mark.slow
@pytest.mark.data
def test_an_attribute_of_digits_turns_one_class_into_another(tmp_path, real_data):
    """An attribute vector turns the class that it comes from into the one that it goes to, for a plain classifier."""
    chosen = ["data=mnist_5k", f"data.root={real_data}", "latent_dim=8", "trainer=cpu", "logger=none", "report=false"]
    quiet = ["trainer.log_every_n_steps=9", "trainer.enable_progress_bar=false", "callbacks.pictures=null"]
    train(composed(*chosen, *quiet, "trainer.max_epochs=10"), tmp_path / "run")
    trained = restore(tmp_path / "run", accelerator="cpu", progress=False)
    model, (x, y) = trained.model, trained.images(10**6)
    means = torch.stack([x[y == k].mean(dim=0) for k in range(10)])

    def nearest(images):
        return (images[:, None] - means).square().flatten(2).sum(dim=-1).argmin(dim=-1)

    vector = torch.tensor(generated(tmp_path / "run", "edit", "source=0", "target=1")["vector"])
    z = model.encode(x[y == 0]).mean
    before, after = (nearest(model.decode(each).mean) for each in (z, z + vector))
    assert (before == 0).float().mean() > 0.8
    assert (after == 1).float().mean() > 0.8
