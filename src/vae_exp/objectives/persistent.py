"""Monte Carlo EM whose chains go on where they were when they last saw their image.

Monte Carlo EM: arXiv:1312.6114, section 5 and appendix E. Chains that are kept: Tieleman (2008), for other models.
"""

import torch
from torch import Tensor, nn

from vae_exp.draws import Draw
from vae_exp.estimators.hmc import hmc
from vae_exp.objectives.model import Model, Objective, check_count
from vae_exp.objectives.wake import check_chains

__all__ = ["PersistentMCEM"]

RATE = 0.5  # change of the log step size, per unit of acceptance above the target
JITTER = 0.2  # of the step size: see `hmc`


class PersistentMCEM(nn.Module, Objective):
    """Monte Carlo EM without an encoder: the comparison of Kingma & Welling (2014).

    Each training image has one chain of Hamiltonian Monte Carlo on its `p(z | x)`, which starts from N(0, I) and moves
    each time the image is drawn. Decoder and prior then make `updates` steps on `-log p(x, z)` with what is drawn; the
    step size is adapted to the acceptance that is asked for. The encoder is trained beside, on `-log q(z | x)` at the
    chains, for validation and pictures: p learns nothing from it. In evaluation the loss is `-elbo`.

    Chains and step size are in every checkpoint: a resumed run goes on with them.

    Arguments:
        train_size: N, number of training images; each has a chain.
        latent_dim: D.
        updates: Steps on the same images, bits and latents.
        transitions: Proposals of a chain when it moves.
        leapfrog: Leapfrog steps of each proposal.
        step_size: Length of a leapfrog step at the start; randomly up to a fifth more or less for each proposal.
        acceptance: Share of accepted proposals that it is adapted to.

    Raises:
        ValueError: If an argument is out of its range.
    """

    reads_rows = True
    chains: Tensor
    step_size: Tensor
    accepted: Tensor

    def __init__(
        self,
        train_size: int | None,
        latent_dim: int,
        updates: int = 5,
        transitions: int = 1,
        leapfrog: int = 10,
        step_size: float = 0.1,
        acceptance: float = 0.9,
    ) -> None:
        super().__init__()
        if train_size is None:
            raise ValueError("objective.train_size: the number of training images is needed, set data.train_size")
        if not step_size > 0:
            raise ValueError(f"objective.step_size={step_size}: a number above 0 is needed")
        if not 0 < acceptance < 1:
            raise ValueError(f"objective.acceptance={acceptance}: a share above 0 and below 1 is needed")
        self.repeats = check_count("updates", updates)
        self.transitions = check_count("transitions", transitions)
        self.leapfrog = check_count("leapfrog", leapfrog)
        self.acceptance = acceptance
        self.register_buffer("chains", torch.randn(check_count("train_size", train_size), latent_dim))
        self.register_buffer("step_size", torch.tensor(float(step_size)))
        self.register_buffer("accepted", torch.tensor(float(acceptance)))  # at the last move

    def forward(
        self, model: Model, x: Tensor, y: Tensor, step: Tensor, rows: Tensor | None = None
    ) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), (), (B,) ->` scalar loss, draw from the posterior q.

        Raises:
            ValueError: If the posterior has no rsample, like discrete ones, the likelihood depends on the batch, the
                prior is made of posteriors, the model has other latents, or there are several processes.
        """
        start = model.draw(x, y, stop=("z", "q", "p"))
        if not torch.is_grad_enabled():
            return -start.elbo.mean(), start
        check_chains("persistent_mcem", model, start)
        self._check(start)
        if rows is None:  # blank images, that show whether the parts fit
            rows = torch.arange(len(x), device=x.device) % len(self.chains)
        if int(step) % self.repeats == 0:
            self._move(start, rows)
        start.extras["hmc_acceptance"] = self.accepted.expand(len(x)).clone()
        start.extras["hmc_step_size"] = self.step_size.expand(len(x)).clone()
        end = model.draw(x, y, z=self.chains[rows][None], stop=("z",))
        return -(end.log_px + end.log_pz + end.log_qz).mean(), start

    def _move(self, draw: Draw, rows: Tensor) -> None:
        z, accepted = hmc(
            draw.log_joint, self.chains[rows][None], self.transitions, self.leapfrog, self.step_size, JITTER
        )
        self.chains[rows] = z[0]
        self.accepted.copy_(accepted.mean())
        self.step_size.mul_((RATE * (self.accepted - self.acceptance)).exp())

    def _check(self, draw: Draw) -> None:
        if draw.z.shape[-1] != self.chains.shape[-1]:
            raise ValueError(
                f"objective=persistent_mcem keeps chains of {self.chains.shape[-1]} latents, this model has "
                f"{draw.z.shape[-1]}: choose objective=mcem, or model=vae"
            )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise ValueError("objective=persistent_mcem keeps its chains in one process: set trainer.devices=1")
