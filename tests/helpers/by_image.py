"""Parts for the tests of several processes: the noise of a latent is a function of the image."""

import torch
from torch.distributions import Independent, Normal

from vae_exp.encoders import MLP

NUM_LATENTS = 3


class Encoder(MLP):
    """An MLP whose features carry, behind its own, noise made of the image's bits in whole numbers."""

    def forward(self, x, c=None):
        bits = x.flatten(1).long()
        weights = torch.arange(1, bits.shape[1] + 1).square()
        keys = (bits * weights).sum(dim=1, keepdim=True) + 7919 * torch.arange(NUM_LATENTS)
        noise = ((keys * 2654435761) % 1_000_003).float() / 1_000_003
        return torch.cat([super().forward(x, c), noise * 2 - 1], dim=1)


class Fed(Independent):
    """A normal that is sampled by the noise it is fed."""

    def __init__(self, base, noise):
        super().__init__(base, 1, validate_args=False)
        self.noise = noise

    def rsample(self, sample_shape=()):
        return (self.mean + self.stddev * self.noise).expand(*sample_shape, *self.mean.shape)


class Posterior(torch.nn.Module):
    """A diagonal normal that takes its noise from the last features."""

    def __init__(self, in_features, latent_dim):
        super().__init__()
        self.mu = torch.nn.Linear(in_features - NUM_LATENTS, latent_dim)
        self.logvar = torch.nn.Linear(in_features - NUM_LATENTS, latent_dim)

    def forward(self, h):
        h, noise = h[:, :-NUM_LATENTS], h[:, -NUM_LATENTS:]
        return Fed(Normal(self.mu(h), (0.5 * self.logvar(h)).exp(), validate_args=False), noise)
