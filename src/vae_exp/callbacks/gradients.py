"""The variance of the gradient that each estimator gives the encoder, through training."""

from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from vae_exp import charts
from vae_exp.callbacks.beside import beside
from vae_exp.config import ConfigError
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.objectives.model import Objective
from vae_exp.records import read_rows

__all__ = ["GradientVariance", "gradient_variance"]

ESTIMATORS: Mapping[str, tuple[str, dict[str, str | bool]]] = {
    "score": ("score function", {"kl": "monte_carlo", "estimator": "score_function"}),
    "baseline": ("score function, baseline", {"kl": "monte_carlo", "estimator": "score_function", "baseline": True}),
    "pathwise": ("pathwise", {"kl": "monte_carlo"}),
    "closed_kl": ("pathwise, KL in closed form", {}),
    "stl": ("STL", {"kl": "monte_carlo", "estimator": "stl"}),
}


def gradient_variance(model: VAE, objective: Objective, x: Tensor, y: Tensor, repeats: int) -> float:
    """The trace of the covariance of the gradient of the loss for encoder and posterior, over new latents.

    Arguments:
        model: Its weights do not change.
        objective: What is minimised, nats per image, with its estimator of the gradient.
        x: The images, `(B, C, H, W)`; the gradient is that of their mean loss.
        y: Their labels, `(B,)`.
        repeats: Gradients, at least 2; the variance is the unbiased estimate from these.

    Returns:
        The variance, summed over the weights.
    """
    weights = [*model.encoder.parameters(), *model.posterior.parameters()]
    gradients = []
    for _ in range(repeats):
        loss, _ = objective(model, x, y, model.step)
        parts = torch.autograd.grad(loss, weights)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    return float(torch.stack(gradients).var(dim=0).sum())


class GradientVariance(Callback):
    """Logs `val/gradient_variance_*` at each validation, and draws `images/gradient_variance.png` at the end.

    Every estimator is measured at the same weights, on the same validation images, with as many latents: the score
    function without and with the mean of the other latents as a baseline, the path through the latents with the KL by
    Monte Carlo and in closed form, and STL (Roeder et al., 2017). Training is not changed.

    Arguments:
        num_images: Validation images, whose mean loss has the gradient.
        num_samples: Latents per image; the baseline needs 2.
        repeats: Gradients of each estimator.
    """

    def __init__(self, num_images: int = 100, num_samples: int = 2, repeats: int = 30) -> None:
        if repeats < 2 or num_samples < 2:
            raise ConfigError(
                f"callbacks: GradientVariance with num_samples={num_samples} repeats={repeats}: at least 2 of each "
                "are needed"
            )
        self.num_images, self.repeats = num_images, repeats
        self.objectives = {
            name: ELBO(num_samples=num_samples, **keys)  # type: ignore[arg-type]
            for name, (_, keys) in ESTIMATORS.items()
        }

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        with beside(trainer) as trained, torch.enable_grad():
            x, y = trained.images(self.num_images)
            for name, objective in self.objectives.items():
                trained.reseed("gradients", name)
                variance = gradient_variance(trained.model, objective, x, y, self.repeats)
                pl_module.log(f"val/gradient_variance_{name}", variance)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        columns = {f"val/gradient_variance_{name}": label for name, (label, _) in ESTIMATORS.items()}
        label = "variance of the encoder's gradient"
        drawn = charts.lines(read_rows(folder / "metrics.csv"), columns, label, is_log=True)
        if trainer.is_global_zero and drawn is not None:
            charts.save(drawn, folder / "images" / "gradient_variance.png", "training")
