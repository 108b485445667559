"""The linear-Gaussian model, of which everything is known in closed form (probabilistic PCA), and its parts."""

import math

import torch
from scipy import stats
from torch import nn
from torch.distributions import MultivariateNormal

from vae_exp import likelihoods
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import FullNormal
from vae_exp.priors import StandardNormal


class Flat(nn.Linear):
    """An encoder: the pixels, through one linear map."""

    def forward(self, x, c=None):
        return super().forward(x.flatten(1))


class Affine(nn.Linear):
    """A decoder: x = W z + b."""

    def forward(self, z, c=None):
        return super().forward(z).unflatten(1, (1, 1, self.out_features))


class Given(nn.Module):
    """An encoder that ignores x: the features `(B, F)`, or `(1, F)` for all images, are its parameter.

    With B of them the gradient of each image is a replicate of its own, independent of the others.
    """

    def __init__(self, h):
        super().__init__()
        self.h = nn.Parameter(h.clone())

    def forward(self, x, c=None):
        return self.h.expand(len(x), -1)


class GivenEach(nn.Module):
    """A decoder with a W `(B, N, D)` and a b `(B, N)` for each image, all equal: replicates of the gradient."""

    def __init__(self, affine, num):
        super().__init__()
        self.weight = nn.Parameter(affine.weight.detach().repeat(num, 1, 1))
        self.bias = nn.Parameter(affine.bias.detach().repeat(num, 1))

    def forward(self, z, c=None):
        z = z.unflatten(0, (-1, len(self.weight)))
        return (torch.einsum("kbd,bnd->kbn", z, self.weight) + self.bias).flatten(0, 1)[:, None, None]


def full_normal(dims=2):
    """A posterior whose features are the mean, the log variances and what is below the diagonal, as they are."""
    posterior = FullNormal(2 * dims + dims * (dims - 1) // 2, dims)
    with torch.no_grad():
        rows = torch.eye(posterior.mu.in_features).split((dims, dims, dims * (dims - 1) // 2))
        for head, weight in zip((posterior.mu, posterior.logvar, posterior.below), rows, strict=True):
            head.weight.copy_(weight)
            head.bias.zero_()
    return posterior


def features(mean, factor):
    """The features of `full_normal` for a mean `(D,)` and a lower triangular factor `(D, D)`, `(1, F)`."""
    rows, columns = torch.tril_indices(len(mean), len(mean), -1)
    below = len(mean) * factor[rows, columns] / factor.diagonal()[rows]  # in units of the scale, times D
    return torch.cat([mean, 2 * factor.diagonal().log(), below])[None]


def make_at(shift, scale):
    """A model whose posterior is a given one for every image, and one image.

    It is off the true one by `shift (D,)` standard deviations, and its factor is the true one's times `scale`.
    """
    size, dims = 4, len(shift)
    model, x = make(Given(torch.zeros(1, 5)), Affine(dims, size), ELBO()), torch.randn(1, 1, 1, size).double()
    _, true = exact(model, x)
    factor = true.scale_tril[0]
    mean = true.mean[0] + factor @ torch.tensor(shift).double()
    model.encoder.h.data = features(mean, factor * torch.tensor(scale).double())
    return model, x


def make(encoder, decoder, objective, scale=0.5, posterior=None):
    """A VAE in float64 with `p(x | z) = N(decoder(z), scale^2 I)` and `p(z) = N(0, I)`."""
    posterior = posterior or full_normal()
    prior = StandardNormal(posterior.mu.out_features)
    return VAE(encoder, decoder, posterior, prior, likelihoods.Normal(scale), objective).double()


@torch.no_grad()
def exact(model, x):
    """`log p(x) (B,)` and `p(z | x)`, in float64."""
    w, b, v = model.decoder.weight.double(), model.decoder.bias.double(), model.likelihood.scale**2
    x = x.flatten(1).double()
    log_p = stats.multivariate_normal(b, w @ w.T + v * torch.eye(len(b))).logpdf(x)
    cov = torch.linalg.inv(torch.eye(w.shape[1]) + w.T @ w / v)
    return torch.as_tensor(log_p).reshape(len(x)), MultivariateNormal((x - b) @ w @ cov / v, cov)


def exact_terms(model, x):
    """`recon` and `kl`, `(B,)` each, of a normal posterior without noise, with a gradient.

    `-E_q log p(x | z) = (|x - W m - b|^2 + tr W S W^T) / 2 v + N/2 log 2 pi v` and
    `KL(N(m, S) || N(0, I)) = (tr S + |m|^2 - D - log det S) / 2`.
    """
    w, b, v = model.decoder.weight, model.decoder.bias, model.likelihood.scale**2
    q = model.encode(x)
    cov = q.covariance_matrix if isinstance(q, MultivariateNormal) else q.variance.diag_embed()
    errors = (x.flatten(1) - q.mean @ w.T - b).square().sum(-1) + ((w @ cov) * w).sum((-2, -1))
    traces = cov.diagonal(dim1=-2, dim2=-1).sum(-1) + q.mean.square().sum(-1)
    kl = (traces - q.mean.shape[-1] - torch.logdet(cov)) / 2
    return errors / (2 * v) + len(b) / 2 * math.log(2 * math.pi * v), kl
