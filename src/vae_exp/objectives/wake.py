"""Objectives that train decoder and encoder on two different problems.

Wake-sleep: Hinton et al., Science 268 (1995). Monte Carlo EM: arXiv:1312.6114, appendix E.
"""

import torch
from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.estimators.hmc import hmc
from vae_exp.objectives.model import Model, Objective, check_count
from vae_exp.schedules import Number, at, check

__all__ = ["MCEM", "WakeSleep", "check_chains"]


class WakeSleep(Objective):
    """Wake-sleep (Hinton et al., 1995): the loss is `-E_q log p(x, z)` for p plus `-E_p log q(z | x)` for q.

    In the wake phase the decoder learns the images from the encoder's latents. In the sleep phase the encoder learns
    the latents of dreams, images that the decoder made, one for each image of the batch.

    Arguments:
        num_samples: K, latents per image in the wake phase.
    """

    def __init__(self, num_samples: int = 1) -> None:
        self.num_samples = check_count("num_samples", num_samples)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw of the wake phase.

        Raises:
            ValueError: If the prior is made of posteriors.
        """
        _check_apart("wake_sleep", model)
        wake = model.draw(x, y, self.num_samples, stop=("z", "q"))
        with torch.no_grad():
            z = wake.sample_prior(1)
            dreams = wake.decode(z).sample()[0]
        sleep = model.draw(dreams, y, z=z, stop=("z", "p"))
        return -(wake.log_px + wake.log_pz).mean() - sleep.log_qz.mean(), wake


class MCEM(Objective):
    """Monte Carlo EM, the comparison of Kingma & Welling (2014, appendix E), with an encoder beside it.

    E-step: Hamiltonian Monte Carlo on `p(z | x)`, started from the encoder's latents. M-step: one step of the decoder
    and the prior on `log p(x, z)`, and of the encoder on `log q(z | x)`, at the ends of the chains. In evaluation the
    loss is `-elbo`.

    Arguments:
        num_samples: K, chains per image.
        transitions: Proposals of each chain.
        leapfrog: Leapfrog steps of each proposal.
        step_size: Length of a leapfrog step, randomly up to a fifth more or less for each proposal; good if
            `hmc_acceptance` lies between 0.6 and 0.9. May be a schedule.
    """

    def __init__(self, num_samples: int = 1, transitions: int = 5, leapfrog: int = 10, step_size: Number = 0.1) -> None:
        self.num_samples = check_count("num_samples", num_samples)
        self.transitions = check_count("transitions", transitions)
        self.leapfrog = check_count("leapfrog", leapfrog)
        self.step_size = check("objective.step_size", step_size)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw from the posterior q.

        Raises:
            ValueError: If the posterior has no rsample, like discrete ones, the likelihood depends on the batch, or the
                prior is made of posteriors.
        """
        start = model.draw(x, y, self.num_samples, stop=("z", "q", "p"))
        if not torch.is_grad_enabled():
            return -start.elbo.mean(), start
        check_chains("mcem", model, start)
        step_size = at(self.step_size, step)
        z, acceptance = hmc(start.log_joint, start.z, self.transitions, self.leapfrog, step_size, jitter=0.2)
        start.extras["hmc_acceptance"] = acceptance.mean(dim=0)
        end = model.draw(x, y, z=z, stop=("z",))
        return -(end.log_px + end.log_pz + end.log_qz).mean(), start


def check_chains(name: str, model: Model, draw: Draw) -> None:
    """Refuses chains where latents, likelihood or prior do not allow them.

    Raises:
        ValueError: It names the objective `name`, and what to choose.
    """
    _check_apart(name, model)
    if not draw.q.has_rsample:
        raise ValueError(
            f"objective={name} moves latents along gradients, which is impossible for discrete ones: "
            "choose objective=wake_sleep"
        )
    if model.likelihood.fit is not None:
        raise ValueError(
            f"objective={name} needs a fixed density, and that of likelihood=sigma_vae depends on what it scores: "
            "choose likelihood=gaussian_shared"
        )


def _check_apart(name: str, model: Model) -> None:
    if torch.is_grad_enabled() and model.prior.is_of_posteriors:
        raise ValueError(
            f"objective={name} trains the prior apart from the encoder, and {type(model.prior).__name__} is made\n"
            "of its posteriors: choose prior=standard_normal (mixture, flow)"
        )
