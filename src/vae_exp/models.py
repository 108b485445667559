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

from vae_exp.draws import Draw, full_precision
from vae_exp.ledger import Ledger
from vae_exp.objectives import BetaELBO, Model

__all__ = ["CVAE", "VAE", "BetaVAE"]

Objective = Callable[[Model, Tensor, Tensor], tuple[Tensor, Draw]]


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
        self.ledgers = {stage: Ledger(stage) for stage in ("train", "val", "test")}

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
        with full_precision(x):
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
        with full_precision(z):
            return self.likelihood(_at_least_float32(params).view(*batch, *params.shape[1:]))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """`(B, C, H, W), (B,) ->` `q(z | x, c)`, batch `(B,)`, event `(D,)`."""
        return self._infer(x, self.context(y))

    def _infer(self, x: Tensor, c: Tensor | None) -> Distribution:
        h = self.encoder(x, c)
        with full_precision(x):
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
        loss, draw = self.objective(self, *batch)
        self.note("train", draw.recon, draw.kl, loss, batch_idx)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Scores a batch; callbacks find its draw in the output."""
        return self._evaluate("test", batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        """Logs the means since the last time, every `trainer.log_every_n_steps`; called after one step or several."""
        self.ledgers["train"].add_up()
        if self._is_row_due():
            self._log_train()

    def note(self, stage: str, recon: Tensor, kl: Tensor, loss: Tensor, batch_idx: int) -> None:
        """Enters a batch into the ledger of its stage: recon and kl `(B,)` and the loss."""
        where = f"step {self.global_step} (epoch {self.current_epoch}, batch {batch_idx})"
        self.ledgers[stage].note(recon, kl, loss, where)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation images."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test images."""
        self._log("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was summed since the last row of `train/`: a resumed run goes on with it."""
        ledger = self.ledgers["train"]
        ledger.add_up()
        # Saved at the end of a batch, a checkpoint comes just before its row.
        if ledger.mean.sums is not None and not self._is_row_due():
            checkpoint["train_sums"] = ledger.mean.sums.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it up."""
        sums = checkpoint.get("train_sums")
        self.ledgers["train"].mean.sums = None if sums is None else sums.to(self.device)

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        loss, draw = self.objective(self, *batch)
        self.note(stage, draw.recon, draw.kl, loss, batch_idx)
        return {"loss": loss, "draw": draw}

    def _log(self, stage: str) -> None:
        for name, mean in self._means(stage).items():
            # The mean is already over all processes; sync_dist only spares Lightning's reminder to do so.
            self.log(name, mean, on_epoch=True, prog_bar=name.endswith("elbo"), sync_dist=True)

    def _is_row_due(self) -> bool:
        trainer = self.trainer
        is_multiple = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        return is_multiple and not trainer.fit_loop._should_accumulate()

    def _log_train(self) -> None:
        # What `self.log` does, without its machinery, which takes about as long as a step of a small model.
        means = self._means("train")
        self.trainer.callback_metrics.update({name: torch.tensor(mean) for name, mean in means.items()})
        self.trainer.progress_bar_metrics["train/elbo"] = means["train/elbo"]
        for logger in self.loggers:
            logger.log_metrics(means | {"epoch": self.current_epoch}, step=self.global_step - 1)
            logger.save()

    def _means(self, stage: str) -> dict[str, float]:
        self.ledgers[stage].add_up()
        means = self.ledgers[stage].mean.compute(lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        return {
            f"{stage}/{name}": mean for name, mean in zip(("elbo", "recon", "kl", "loss"), means.tolist(), strict=True)
        }


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


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
