"""The models: a VAE is `p(z | c)`, `p(x | z, c)`, `q(z | x, c)` and an objective.

Letters: B images, K latents per image, D latent_dim, F encoder features, P params_per_pixel. Units are nats
per image: sums over pixels, means over images.

What changes the graphical model is a class here; what changes how it is trained is a part. A subclass overrides
one hook (`context`) or fixes one part; never a step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from vae_exp.draws import Draw
from vae_exp.ledger import Mean
from vae_exp.objectives import BetaELBO, Model

__all__ = ["CVAE", "VAE", "BetaVAE", "NonFiniteError"]

Objective = Callable[[Model, Tensor, Tensor], tuple[Tensor, Draw]]


class NonFiniteError(ArithmeticError):
    """A loss that is not a finite number; the message names the term and the batch."""


class VAE(pl.LightningModule):
    """A variational autoencoder (Kingma & Welling, 2014) put together from its parts.

    Arguments:
        encoder: `(x, c) -> h`, see `vae_exp.encoders`.
        decoder: `(z, c) -> params`, see `vae_exp.decoders`.
        posterior: `h -> q(z | x, c)`, see `vae_exp.posteriors`.
        prior: `c -> p(z | c)`, see `vae_exp.priors`.
        likelihood: `params -> p(x | z, c)`, see `vae_exp.likelihoods`.
        objective: `(model, x, y) -> loss, draw`, see `vae_exp.objectives`.
        optimizer: Makes the optimizer from the parameters.
        context_dim: Width of c; 0, for a VAE conditions on nothing.
    """

    bounds = "log p(x)"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        likelihood: nn.Module,
        objective: Objective,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.posterior = posterior
        self.prior = prior
        self.likelihood = likelihood
        self.objective = objective
        self.optimizer = optimizer
        self.context_dim = context_dim
        self._means = {"train": Mean(), "val": Mean(), "test": Mean()}

    def context(self, y: Tensor | None) -> Tensor | None:
        """`(B,) -> (B, context_dim)` or None: what encoder, decoder and prior are told beside x and z."""
        return None

    def draw(self, x: Tensor, y: Tensor | None = None, num_samples: int = 1, z: Tensor | None = None) -> Draw:
        """Draws latents for images and scores them: the one place where anything is scored.

        Arguments:
            x: Images, `(B, C, H, W)`.
            y: Labels, `(B,)`.
            num_samples: K, latents per image.
            z: Latents `(K, B, D)` to score instead of fresh ones.
        """
        c = self.context(y)
        q = self._infer(x, c)
        with _full_precision(x):
            p = self.prior(c)
            if z is None:
                z = q.rsample((num_samples,))
        return Draw(x, z, q, p, self.decode(z, c))

    def decode(self, z: Tensor, c: Tensor | None) -> Distribution:
        """`(..., B, D), (B, context_dim) ->` `p(x | z, c)`, batch `(..., B)`, event `(C, H, W)`."""
        batch = z.shape[:-1]
        if c is not None:
            c = c.expand(*batch, -1).reshape(-1, c.shape[-1])
        params = self.decoder(z.reshape(-1, z.shape[-1]), c)
        with _full_precision(z):
            return self.likelihood(_at_least_float32(params).unflatten(0, batch))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """`(B, C, H, W), (B,) ->` `q(z | x, c)`, batch `(B,)`, event `(D,)`."""
        return self._infer(x, self.context(y))

    def _infer(self, x: Tensor, c: Tensor | None) -> Distribution:
        h = self.encoder(x, c)
        with _full_precision(x):
            return self.posterior(_at_least_float32(h))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """`(B, C, H, W), (B,) -> (B, C, H, W)`: the mean image at the mean of the posterior, or, where it knows none
        (a flow), at a sample."""
        q = self.encode(x, y)
        try:
            z = q.mean
        except NotImplementedError:
            z = q.sample()
        return self.decode(z, self.context(y)).mean

    @torch.no_grad()
    def sample(self, num: int, y: Tensor | None = None) -> Tensor:
        """`num` mean images of `p(x | z, c)`, `(num, C, H, W)`, z from the prior; `y (num,)` where c needs labels.

        Raises:
            ValueError: If there are not as many labels as images.
        """
        if y is not None and len(y) != num:
            raise ValueError(f"{len(y)} labels y for {num} samples")
        c = self.context(y)
        p = self.prior(c)
        z = p.sample() if p.batch_shape else p.sample((num,))
        return self.decode(z, c).mean

    def configure_optimizers(self) -> Optimizer:
        """Gives every parameter to one optimizer."""
        return self.optimizer(self.parameters())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step of the objective."""
        x, y = batch
        loss, draw = self.objective(self, x, y)
        self._account("train", loss, draw, batch_idx)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("test", batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Logs the means since the last time, every `trainer.log_every_n_steps`."""
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log("train", on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation images."""
        self._log("val", on_epoch=True)

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test images."""
        self._log("test", on_epoch=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was summed since the last row of `train/`: a resumed run goes on with it."""
        if self._means["train"].sums is not None:
            checkpoint["train_sums"] = self._means["train"].sums.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it up."""
        sums = checkpoint.get("train_sums")
        self._means["train"].sums = None if sums is None else sums.to(self.device)

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        loss, draw = self.objective(self, *batch)
        self._account(stage, loss, draw, batch_idx)
        return {"loss": loss, "draw": draw}

    def _account(self, stage: str, loss: Tensor, draw: Draw, batch_idx: int) -> None:
        if not torch.isfinite(loss):
            raise NonFiniteError(self._explain_non_finite(stage, loss, draw, batch_idx))
        num_images = len(draw.x)
        total = torch.stack([draw.elbo.sum(), draw.recon.sum(), draw.kl.sum(), loss * num_images])
        self._means[stage].update(total, num_images)

    def _log(self, stage: str, on_epoch: bool) -> None:
        # The means are already over all processes; sync_dist only spares Lightning's reminder to do so.
        means = self._means[stage].compute(lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        for name, mean in zip(("elbo", "recon", "kl", "loss"), means.float(), strict=True):
            self.log(
                f"{stage}/{name}",
                mean,
                on_step=not on_epoch,
                on_epoch=on_epoch,
                prog_bar=name == "elbo",
                sync_dist=on_epoch,
            )

    def _explain_non_finite(self, stage: str, loss: Tensor, draw: Draw, batch_idx: int) -> str:
        bad = []
        for name, term in (("recon", draw.recon), ("kl", draw.kl)):
            wrong = term[~term.isfinite()]
            if len(wrong):
                bad.append(f"{name} is {wrong[0].item()} for {len(wrong)} of {len(term)} images")
        return (
            f"{stage}/loss is {loss.item()} at step {self.global_step} "
            f"(epoch {self.current_epoch}, batch {batch_idx}): "
            f"{'; '.join(bad) or 'recon and kl are finite, the objective is not'}.\n"
            "Ways out: a smaller optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32-true."
        )


class CVAE(VAE):
    """A conditional VAE (Sohn et al., 2015): c is the one-hot label, given to encoder, decoder and prior.

    Its ELBO bounds `log p(x | y)`, which is larger than `log p(x)` by `log p(y | x) - log p(y)`, up to the log of
    the number of classes.
    """

    bounds = "log p(x|y)"

    def context(self, y: Tensor | None) -> Tensor:
        """`(B,) -> (B, num_classes)`, one-hot.

        Raises:
            ValueError: If a label is missing.
        """
        if y is None:
            raise ValueError("a CVAE needs the labels y, one for each image")
        try:
            return F.one_hot(y, self.context_dim).to(self.dtype)
        except RuntimeError as error:
            raise ValueError(f"a CVAE needs labels y from 0 to {self.context_dim - 1}, one for each image") from error


class BetaVAE(VAE):
    """The beta-VAE (Higgins et al., 2017): a VAE trained on `BetaELBO`. Its ledger is a VAE's, without beta."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.objective, BetaELBO):
            raise ValueError(
                f"model=beta_vae is trained on objective=beta_elbo, not on {type(self.objective).__name__}: "
                "for another objective choose model=vae"
            )


def _full_precision(x: Tensor) -> torch.autocast:
    """Mixed precision is for encoder and decoder; densities are built and summed in float32."""
    return torch.autocast(x.device.type, enabled=False)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
