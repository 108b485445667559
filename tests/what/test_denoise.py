"""Images corrupted and reconstructed."""

from math import sqrt

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.runs import generated
from PIL import Image

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.runs.trained import restore

pytestmark = pytest.mark.usefixtures("drawn")


def test_noise_is_that_of_the_run_or_the_one_chosen(run):
    folder, _ = run("corruption=gaussian", "corruption.scale=0.2", "data.source.size=400")
    for chosen, scale in (([], 0.2), (["corruption=gaussian", "corruption.scale=0.7"], 0.7)):
        numbers = generated(folder, "denoise", *chosen)
        # The mean of n squares of normal numbers has the error scale^2 sqrt(2 / n).
        num = restore(folder, progress=False, accelerator="cpu").num_images() * 64
        assert numbers["error_noisy"] == pytest.approx(scale**2, abs=4.5 * scale**2 * sqrt(2 / num))
        assert numbers["error_noisy_se_images"] > 0
    trained = restore(folder, progress=False, accelerator="cpu")
    x, y = trained.images(1000)
    assert numbers["error_clean"] == pytest.approx(
        float((trained.model.reconstruct(x, y) - x).square().mean()), rel=1e-5
    )
    masked = generated(folder, "denoise", "corruption=mask", "corruption.share=0.4")
    assert masked["error_noisy"] == pytest.approx(0.4 * float(x.square().mean()), rel=0.1)
    assert masked == generated(folder, "denoise", "corruption=mask", "corruption.share=0.4")
    assert masked["error_denoised"] != masked["error_clean"]


def test_a_run_without_a_corruption_needs_one(run):
    folder, _ = run()
    with pytest.raises(NoMeaningError, match="corruption=gaussian or mask"):
        generated(folder, "denoise")
    with pytest.raises(ConfigError, match=r"corruption\.share=2"):
        generated(folder, "denoise", "corruption=mask", "corruption.share=2")


def test_files_are_taken_for_noisy(run, tmp_path):
    folder, _ = run()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert generated(folder, "denoise", f"input='{tmp_path}/a.png'") == {}
    model = restore(folder, progress=False, accelerator="cpu").model
    recon = model.reconstruct(torch.from_numpy(pixels)[None, None] / 255)[0, 0]
    with Image.open(folder / "images/denoise/a.png") as image:
        assert (np.asarray(image) == (255 * recon.clamp(0, 1)).round().byte().numpy()).all()


PARTS = [["model=ae"], ["model=cvae"], ["model=m2", "data.labelled=8"], ["posterior=flow"]]


@pytest.mark.parametrize("parts", slow_but([["model=cvae"]], PARTS))
def test_other_models_denoise_too(run, parts):
    folder, _ = run(*parts)
    numbers = generated(folder, "denoise", "corruption=mask", "num_images=7")
    assert 0 < numbers["error_denoised"] < 1
    assert (folder / "images/denoise/denoise.png").exists()
