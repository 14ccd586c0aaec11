"""Bits per dimension from log-densities."""

import math

import numpy as np

from benchmark.metrics.arrays import Array, Estimate, mean_estimate, to_numpy


def bits_per_dim(nats: Array, dims: int, grey_levels: int) -> np.ndarray:
    """``-nats / (dims ln 2) - log2(2 / grey_levels)`` of each image; lower is better.

    A density uniform over the bins has ``log2(grey_levels)``, 8 for 256 levels. With exact likelihoods of dequantised
    images the result is an upper bound on the bits of the grey levels.

    Args:
        nats: Log-densities of images in [-1, 1], natural log, ``(N,)``.
        dims: Pixels times channels of an image.
        grey_levels: Of a pixel: 256, or 17 for scikit-learn's digits.

    Raises:
        ValueError: If ``dims < 1`` or ``grey_levels < 2``.
    """
    if dims < 1 or grey_levels < 2:
        raise ValueError(f"need dims >= 1 and grey_levels >= 2, got {dims} and {grey_levels}")
    return -to_numpy(nats).astype(np.float64) / (dims * math.log(2)) - math.log2(2 / grey_levels)


def negative_log_likelihood(nats: Array, dims: int, grey_levels: int) -> Estimate:
    """Mean bits per dimension over images, with ``std / sqrt(n)``; arguments as in ``bits_per_dim``.

    Raises:
        ValueError: If an image has no finite log-density (a mean would hide it), or there are fewer than two images.
    """
    return mean_estimate(bits_per_dim(nats, dims, grey_levels))
