"""Metrics of nearest neighbours, in blocks: memory grows with the block, never with the square of the set."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.arrays import Array, Estimate, full_float32, matrix, mean_estimate, pair, share


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(1)


def _keep_nearest(best: Tensor, found: Tensor) -> None:
    """Put into ``best``, ``(n, k)``, the ``k`` smallest of each row of it and of ``found``."""
    k = best.shape[1]
    found = found.topk(min(k, found.shape[1]), dim=1, largest=False, sorted=False).values
    best.copy_(torch.cat([best, found], 1).topk(k, dim=1, largest=False).values)


def _radii_squared(x: Tensor, k: int, block: int) -> Tensor:
    """Squared distance of each row to its ``k``-th nearest other row; each pair of blocks is multiplied once."""
    squares = _squares(x)
    best = x.new_full((len(x), k), math.inf)
    for i in range(0, len(x), block):
        rows = slice(i, i + block)
        for j in range(i, len(x), block):
            columns = slice(j, j + block)
            products = torch.mm(x[rows], x[columns].T).mul_(-2)
            if i == j:
                products.fill_diagonal_(math.inf)
            else:
                _keep_nearest(best[columns], products.T + squares[rows])
            _keep_nearest(best[rows], products.add_(squares[columns]))
    return (best[:, -1] + squares).clamp_(min=0)


def neighbour_radii(features: Array, k: int = 3, block: int = 2048, device: str | torch.device = "cpu") -> np.ndarray:
    """Distance of each row of ``features`` to its ``k``-th nearest other row, ``(N,)``; compute once per real set.

    Raises:
        ValueError: If there are not more than ``k`` rows.
    """
    x = matrix(features, "features", rows=k + 1, device=device)
    with full_float32():
        return _radii_squared(x - x.mean(0), k, block).sqrt().cpu().numpy()


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], both best at 1."""

    precision: Estimate
    recall: Estimate


def precision_recall(
    real: Array,
    fake: Array,
    k: int = 3,
    block: int = 2048,
    real_radii: Array | None = None,
    device: str | torch.device = "cpu",
) -> PrecisionRecall:
    """Improved precision and recall: how many samples lie among real images, and real images among samples.

    Around each image is a ball that reaches to its ``k``-th nearest neighbour in its own set, itself not counted.
    Precision is the share of samples inside some real ball, recall the share of real images inside some sample's ball;
    a distance equal to the radius is inside. Collapsed samples have high precision and low recall.

    The standard errors are binomial, over the samples for precision and over the real images for recall, with the balls
    held fixed; for recall that leaves out the draw of the samples.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), Sec. 2.

    Args:
        real: Features of real images ``(N, D)``.
        fake: Features of samples ``(M, D)``; ``M`` enters the recall, so compare equal counts only.
        k: Neighbours.
        block: Rows of a block; ``block**2`` distances are held at a time.
        real_radii: ``neighbour_radii(real, k)`` if at hand.
        device: Where distances are computed, in full float32 (double for double features).

    Raises:
        ValueError: If a set does not have more than ``k`` rows, or ``real_radii`` do not fit ``real``.
    """
    if k < 1 or block < 1:
        raise ValueError(f"k and block must be >= 1, got {k} and {block}")
    real, fake = pair(real, fake, rows=k + 1, device=device)
    centre = real.mean(0)  # products lose fewer digits about it
    real, fake = real - centre, fake - centre
    with full_float32():
        if real_radii is None:
            real_reach = _radii_squared(real, k, block)
        else:
            real_reach = torch.as_tensor(real_radii).to(real).square()
            if real_reach.shape != (len(real),):
                raise ValueError(f"real_radii must have shape ({len(real)},), got {tuple(real_reach.shape)}")
        real_squares, fake_squares = _squares(real), _squares(fake)
        # |r - f|^2 <= reach(r)  <=>  |r|^2 - reach(r) - 2 r.f <= -|f|^2: one minimum over r answers it for a sample f
        real_offset, fake_offset = real_squares - real_reach, fake_squares - _radii_squared(fake, k, block)
        least_real = fake.new_full((len(fake),), math.inf)
        least_fake = real.new_full((len(real),), math.inf)
        for i in range(0, len(fake), block):
            rows = slice(i, i + block)
            for j in range(0, len(real), block):
                columns = slice(j, j + block)
                products = torch.mm(fake[rows], real[columns].T).mul_(-2)
                found = (products + real_offset[columns]).amin(1)
                least_real[rows] = torch.minimum(least_real[rows], found)
                found = products.add_(fake_offset[rows, None]).amin(0)
                least_fake[columns] = torch.minimum(least_fake[columns], found)
    return PrecisionRecall(share(least_real <= -fake_squares), share(least_fake <= -real_squares))


def nearest_distances(queries: Array, points: Array, block: int = 2048, device: str | torch.device = "cpu") -> Tensor:
    """Euclidean distance of each query ``(N, ...)`` to the nearest point ``(M, ...)``, ``(N,)``; a copy has exactly 0.

    The nearest point is searched with matrix products, its distance then taken from the difference.
    """
    flat = [torch.as_tensor(x).flatten(1) for x in (points, queries)]
    points, queries = pair(*flat, rows=1, device=device)
    centre = points.mean(0)
    centred = points - centre
    squares = _squares(centred)
    distances = []
    with full_float32():
        for part in queries.split(block):
            least = part.new_full((len(part),), math.inf)
            nearest = torch.zeros(len(part), dtype=torch.long, device=part.device)
            for j in range(0, len(points), block):
                columns = slice(j, j + block)
                found, index = torch.addmm(squares[columns], part - centre, centred[columns].T, alpha=-2).min(1)
                nearest = torch.where(found < least, index + j, nearest)
                least = torch.minimum(found, least)
            distances.append((part - points[nearest]).norm(dim=1))
    return torch.cat(distances).cpu()


def nearest_neighbour_ratio(
    samples: Array, train: Array, test: Array, block: int = 2048, device: str | torch.device = "cpu"
) -> Estimate:
    """Mean distance of samples to their nearest training image, over that of test images; about 1 is right.

    0 means that samples are copies of training images; a model that has learned the distribution is as far from its
    training images as new images are. Values above 1 say that samples lie off the data. The standard error is the delta
    method's over samples and test images; training images count as fixed.

    Args:
        samples: Images ``(N, ...)`` in any unit, the same for all three.
        train: Training images ``(M, ...)``.
        test: Held-out images ``(L, ...)``.

    Raises:
        ValueError: With fewer than two samples or test images, or if every test image is a training image.
    """
    near = mean_estimate(nearest_distances(samples, train, block, device))
    held_out = mean_estimate(nearest_distances(test, train, block, device))
    if held_out.value == 0:
        raise ValueError("every test image is among the training images; the ratio has no denominator")
    ratio = near.value / held_out.value
    stderr = math.hypot(near.stderr, ratio * held_out.stderr) / held_out.value
    return Estimate(ratio, stderr, near.n)
