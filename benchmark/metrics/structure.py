"""Spatial structure of pictures and of their changes."""

import numpy as np


def neighbour_correlation(pictures: np.ndarray) -> np.ndarray:
    """Correlation of neighbouring pixels, ``(N, C, H, W) -> (N,)`` in [-1, 1].

    ``sum_{i ~ j} z_i z_j / sum_{i ~ j} (z_i^2 + z_j^2) / 2`` over neighbours in a row or column, with ``z`` without its
    mean in each channel. White noise has ``-1 / (H W - 1)`` on average, slow change nearly 1, a chessboard -1, and a
    picture without change 0.
    """
    z = pictures.astype(np.float64)
    z = z - z.mean((2, 3), keepdims=True)
    pairs = ((z[:, :, 1:], z[:, :, :-1]), (z[..., 1:], z[..., :-1]))
    product = sum((a * b).sum((1, 2, 3)) for a, b in pairs)
    power = sum((a**2 + b**2).sum((1, 2, 3)) for a, b in pairs) / 2
    whole = np.square(pictures.astype(np.float64)).sum((1, 2, 3))
    return np.divide(product, power, out=np.zeros(len(z)), where=power > 1e-12 * whole)


def concentration(change: np.ndarray, part: float = 0.1) -> np.ndarray:
    """Share of the squared change that lies in the ``part`` of pixels which change most, ``(N, C, H, W) -> (N,)``.

    Equal change of all pixels has ``part``, a change of no more than that share of pixels 1, no change 0.
    """
    power = np.square(change.astype(np.float64)).sum(1).reshape(len(change), -1)
    most = max(1, round(part * power.shape[1]))
    total = power.sum(1)
    top = np.partition(power, -most, axis=1)[:, -most:].sum(1)
    return np.divide(top, total, out=np.zeros(len(power)), where=total > 0)
