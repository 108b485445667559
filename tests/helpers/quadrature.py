"""Moments and expectations by the midpoint rule, and samples against them."""

import numpy as np
import torch


def plane(half_width=12.0, points=500):
    """Midpoints `(points^2, 2)` of the cells of a square about 0, and the area of one, in double precision."""
    step = 2 * half_width / points
    line = -half_width + step * (torch.arange(points).double() + 0.5)
    return torch.cartesian_prod(line, line), step**2


def assert_moments(samples, mean, cov):
    """Mean and covariance of `samples (N, D)` within five standard errors each."""
    samples = samples.detach().double().numpy()
    deviations = samples - mean
    products = deviations[:, :, None] * deviations[:, None, :]
    for values, expected in ((samples, mean), (products, cov)):
        error = values.std(0) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - expected) <= 5 * error + 1e-9).all()
