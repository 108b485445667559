"""The VAE: the step, and the hooks that other models override."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vae_exp.draws import Draw, sample
from vae_exp.estimators.importance import importance_sampling
from vae_exp.ledger import Ledger
from vae_exp.objectives import Model
from vae_exp.parts import Likelihood, Part, Prior, as_part
from vae_exp.precision import at_least_float32, full_precision

__all__ = ["VAE"]

Objective = Callable[[Model, Tensor, Tensor, Tensor], tuple[Tensor, Draw]]


class VAE(pl.LightningModule):
    """A variational autoencoder (Kingma & Welling, 2014) put together from its parts.

    Arguments:
        encoder: `(x, c) -> h`, see `vae_exp.encoders`.
        decoder: `(z, c) -> params`, see `vae_exp.decoders`.
        posterior: `h -> q(z | x, c)`, see `vae_exp.posteriors`.
        prior: `c -> p(z | c)`, see `vae_exp.priors`.
        likelihood: `params -> p(x | z, c)`, see `vae_exp.likelihoods`.
        objective: `(model, x, y, step) -> loss, draw`, see `vae_exp.objectives`.
        optimizer: Makes the optimizer from the parameters.
        context_dim: Width of c; 0, for a VAE conditions on nothing.
        corruption: `x -> x`, what the encoder sees in training, see `vae_exp.corruptions`. The clean x is scored.
    """

    bounds: str | None = "log p(x)"
    needs_labels = False
    step: Tensor

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
        corruption: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.corruption = corruption or nn.Identity()
        self.encoder = as_part(encoder, Part)
        self.decoder = as_part(decoder, Part)
        self.posterior = as_part(posterior, Part)
        self.prior = as_part(prior, Prior)
        self.likelihood = as_part(likelihood, Likelihood)
        self.objective = objective
        self.optimizer = optimizer
        self.context_dim = context_dim
        # On the device, for schedules; a captured step reads it there.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.is_new = True  # no weights were loaded: parts may start from the data
        self.ledgers = {stage: Ledger(stage) for stage in ("train", "val", "test")}
        self.prior.attach(self._infer)

    def context(self, y: Tensor | None) -> Tensor | None:
        """`(B,) -> (B, context_dim)` or None: what encoder, decoder and prior are told beside x and z."""
        return None

    def draw(
        self,
        x: Tensor,
        y: Tensor | None = None,
        num_samples: int = 1,
        z: Tensor | None = None,
        stop: Collection[str] = (),
    ) -> Draw:
        """Draws latents for images and scores them: the one place where anything is scored.

        Arguments:
            x: Images, `(B, C, H, W)`.
            y: Labels, `(B,)`.
            num_samples: K, latents per image.
            z: Latents `(K, B, D)` to score instead of fresh ones.
            stop: What is held constant in the gradient: "z", the latents; "q", the posterior's parameters in
                `log_qz`; "p", those of prior and decoder in `log_pz` and `log_px`.
        """
        c = self.context(y)
        q = self._infer(self.corruption(x), c)
        log_qz = None
        with full_precision(x):
            p = self.prior(c)
            if z is None:
                z, log_qz = sample(q, num_samples, stop)
        if "z" in stop:
            z = z.detach()
        return Draw(x, z, q, p, partial(self.decode, c=c), stop, log_qz)

    def decode(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """`(..., B, D), (B, context_dim) ->` `p(x | z, c)`, batch `(..., B)`, event `(C, H, W)`; c is `context(y)`."""
        batch = z.shape[:-1]
        if c is not None:
            c = c.expand(*batch, -1).reshape(-1, c.shape[-1])
        params = self.decoder(z.reshape(-1, z.shape[-1]), c)
        with full_precision(z):
            return self.likelihood(at_least_float32(params).view(*batch, *params.shape[1:]))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """`(B, C, H, W), (B,) ->` `q(z | x, c)`, batch `(B,)`, event `(D,)`."""
        return self._infer(self.corruption(x), self.context(y))

    def _infer(self, x: Tensor, c: Tensor | None) -> Distribution:
        h = self.encoder(x, c)
        with full_precision(x):
            return self.posterior(at_least_float32(h))

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
            ValueError: If there are not as many labels as images, or no prior to draw from.
        """
        if y is not None and len(y) != num:
            raise ValueError(f"{len(y)} labels y for {num} samples")
        c = self.context(y)
        p = self.prior(c)
        if p is None:
            raise ValueError("prior=none: there is nothing to draw latents from; choose model=vae")
        z = p.sample() if p.batch_shape else p.sample((num,))
        return self.decode(z, c).mean

    @torch.no_grad()
    def log_marginal(self, x: Tensor, y: Tensor | None = None, num_samples: int = 5000) -> Tensor:
        """`log p(x)` (of a CVAE `log p(x | y)`) by importance sampling, nats, `(B, C, H, W), (B,) -> (B,)` float64.

        Memory grows with B, not with K, `num_samples` latents an image (Burda et al., 2016).
        """
        return importance_sampling(self.draw(x, y), num_samples).log_px

    def configure_optimizers(self) -> Any:
        """Gives every parameter to one optimizer; where its `lr` is a schedule, with a scheduler that follows it."""
        lr = getattr(self.optimizer, "keywords", {}).get("lr")
        if not callable(lr):
            return self.optimizer(self.parameters())
        # The scheduler multiplies by the schedule. A captured step reads a tensor, and would keep a number.
        one = torch.ones((), device=self.device) if self.device.type == "cuda" else 1.0
        optimizer = self.optimizer(self.parameters(), lr=one)  # type: ignore[call-arg]
        scheduler = LambdaLR(optimizer, lambda step: float(lr(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Lets parts start from the training images, unless weights were loaded.

        Raises:
            MisconfigurationException: If a part cannot start from these images; if the likelihood is fitted before each
                validation, and there is none.
        """
        for part in (self.encoder, self.decoder, self.posterior, self.prior, self.likelihood):
            if self.is_new:
                try:
                    part.start_from(self.trainer.datamodule.training_images(whole=True))  # type: ignore[attr-defined]
                except ValueError as error:
                    raise MisconfigurationException(str(error)) from error
        self.is_new = False
        if self.likelihood.fit is not None and not self.trainer.enable_validation:
            raise MisconfigurationException(
                f"likelihood: {type(self.likelihood).__name__} is fitted to the training set before each validation, "
                "and there is none: set trainer.limit_val_batches=null"
            )

    def on_train_start(self) -> None:
        """Puts a scheduled rate back on the device: of a checkpoint it lies on the CPU, and a graph would keep it."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                if isinstance(group.get("lr"), Tensor):
                    group["lr"] = group["lr"].to(self.device)

    def on_validation_start(self) -> None:
        """Fits a likelihood that follows the training set, such as `sigma_vae`, to it."""
        fit = self.likelihood.fit
        if fit is not None and self.trainer.state.fn == "fit":
            batches = self.trainer.datamodule.training_images()  # type: ignore[attr-defined]
            pairs = ((self.draw(x, y).px, x) for x, y in batches)
            fit(pairs, lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        else:
            self.on_test_start()

    def on_test_start(self) -> None:
        """Refuses to score by a likelihood that was to be fitted and was not.

        Raises:
            MisconfigurationException: If no validation took place before which it is fitted.
        """
        if not self.likelihood.is_fitted:
            raise MisconfigurationException(
                f"likelihood: {type(self.likelihood).__name__} is fitted to the training set before each validation, "
                "and none took place: train up to the first one, with more trainer.max_steps or epochs"
            )

    def on_train_batch_start(self, *_: Any) -> None:
        """Tells schedules the step; `loop.Steps` does so for the further steps of a call."""
        self.step.fill_(self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step of the objective."""
        loss, draw = self.objective(self, *batch, self.step)
        self.note("train", draw.terms, loss, batch_idx)
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

    def note(self, stage: str, terms: dict[str, Tensor], loss: Tensor, batch_idx: int) -> None:
        """Enters a batch into the ledger of its stage: terms `(B,)` and the loss."""
        where = f"step {self.global_step} (epoch {self.current_epoch}, batch {batch_idx})"
        self.ledgers[stage].note(terms, loss, where)

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
        if not self._is_row_due():
            checkpoint["train_sums"] = ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it up."""
        self.is_new = False
        if "train_sums" in checkpoint:
            self.ledgers["train"].load_state_dict(checkpoint["train_sums"], self.device)

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        loss, draw = self.objective(self, *batch, self.step)
        self.note(stage, draw.terms, loss, batch_idx)
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
        shown = "train/elbo" if "train/elbo" in means else "train/loss"
        self.trainer.progress_bar_metrics[shown] = means[shown]
        for logger in self.loggers:
            logger.log_metrics(means | {"epoch": self.current_epoch}, step=self.global_step - 1)
            logger.save()

    def _means(self, stage: str) -> dict[str, float]:
        self.ledgers[stage].add_up()
        means = self.ledgers[stage].compute(lambda t: self.trainer.strategy.reduce(t, reduce_op="sum"))
        return {f"{stage}/{name}": mean for name, mean in means.items()}
