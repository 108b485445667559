"""The pseudo-inputs of a VampPrior (arXiv:1705.07120)."""

from pathlib import Path
from typing import Any

import torch

from vae_exp import plots
from vae_exp.config import NoMeaningError
from vae_exp.priors import Vamp
from vae_exp.runs.trained import Trained

__all__ = ["pseudo_inputs"]


def pseudo_inputs(trained: Trained, out: Path) -> dict[str, Any]:
    """Writes `pseudo_inputs.png`: the learned u of the prior `1/K sum_k q(z|u_k)`; with classes, each in its own rows.

    Raises:
        NoMeaningError: If the prior has none.
    """
    prior = trained.model.prior
    if not isinstance(prior, Vamp):
        name = type(prior).__name__
        raise NoMeaningError(f"what=pseudo_inputs: prior {name} has none, only prior=vamp has them")
    u = prior.pseudo_inputs.detach()
    classes = prior.context_dim or 1
    # Each class starts a new row: u_k has the class k modulo the number of classes.
    each = [u[k::classes] for k in range(classes)]
    columns = min(20, len(each[0]))
    lines, rows = [], []
    for k, images in enumerate(each):
        missing = torch.ones(-len(images) % columns, *u.shape[1:], device=u.device)
        lines += [images, missing]
        first = f"y = {k}" if prior.context_dim else ""
        rows += [first, *[""] * ((len(images) + len(missing)) // columns - 1)]
    title = f"{trained.cfg.name}\nthe {len(u)} pseudo-inputs of the VampPrior" + (
        ", equally probable" if classes == 1 else ", equally probable within their class y"
    )
    plots.grid(torch.cat(lines), title, out / "pseudo_inputs.png", rows=rows, columns=columns)
    return {"pseudo_inputs": len(u)}
