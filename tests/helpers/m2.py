"""A small semi-supervised VAE."""

import torch

from vae_exp import decoders, encoders, likelihoods
from vae_exp.models import M2
from vae_exp.objectives import ELBO, SemiSupervised
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal

B, K, D, FEATURES, CLASSES = 5, 3, 2, 6, 4
IMAGE = (1, 3, 3)


def make(objective=None, image=IMAGE, cls=M2, prior=None):
    own = {"classifier": encoders.MLP(image, hidden=[7], out_features=FEATURES, activation="Tanh")}
    own |= {"classifier_features": FEATURES}
    return cls(
        encoders.MLP(image, CLASSES, hidden=[7], out_features=FEATURES, activation="Tanh"),
        decoders.MLP(D, image, CLASSES, hidden=[7], activation="Tanh"),
        DiagonalNormal(FEATURES, D), prior or StandardNormal(D), likelihoods.Bernoulli(),
        objective or (SemiSupervised(0.1) if cls is M2 else ELBO()), context_dim=CLASSES, **(own if cls is M2 else {}),
    )  # fmt: skip


def make_batch(b=B, image=IMAGE):
    return torch.rand(b, *image).round(), torch.arange(b) % CLASSES
