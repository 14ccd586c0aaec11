"""Metrics of nearest neighbours, computed in blocks: memory grows with the block, not with the square of the set."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.arrays import Array, Estimate, full_float32, matrix, pair, share
from benchmark.system.arrays import StoredRows


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(1)


class _Blocks:
    """Blocks of rows of ``x`` about ``centre``, where products lose fewer digits, and the rows' squared lengths."""

    def __init__(self, x: Tensor, centre: Tensor, size: int) -> None:
        self.x, self.centre, self.size = x, centre, size
        self.slices = [slice(i, i + size) for i in range(0, len(x), size)]
        self.squares = torch.cat([_squares(self[rows]) for rows in self.slices])

    def __getitem__(self, rows: slice) -> Tensor:
        return self.x[rows] - self.centre

    def __len__(self) -> int:
        return len(self.x)

    def full(self, *shape: int) -> Tensor:
        """Infinities for each row, ``(len(x), *shape)``."""
        return self.x.new_full((len(self.x), *shape), math.inf)


def _keep_nearest(best: Tensor, found: Tensor) -> None:
    """Put into ``best``, ``(n, k)``, the ``k`` smallest of each row of it and of ``found``."""
    k = best.shape[1]
    found = found.topk(min(k, found.shape[1]), dim=1, largest=False, sorted=False).values
    best.copy_(torch.cat([best, found], 1).topk(k, dim=1, largest=False).values)


def _radii_squared(x: _Blocks, k: int) -> Tensor:
    """Squared distance of each row to its ``k``-th nearest other row; each pair of blocks is multiplied once."""
    best = x.full(k)
    for i, rows in enumerate(x.slices):
        block = x[rows]
        for columns in x.slices[i:]:
            products = torch.mm(block, (block if rows == columns else x[columns]).T).mul_(-2)
            if rows == columns:
                products.fill_diagonal_(math.inf)
            else:
                _keep_nearest(best[columns], products.T + x.squares[rows])
            _keep_nearest(best[rows], products.add_(x.squares[columns]))
    return (best[:, -1] + x.squares).clamp_(min=0)


def neighbour_radii(features: Array, k: int = 3, block: int = 1024, device: str | torch.device = "cpu") -> np.ndarray:
    """Distance of each row of ``features`` to its ``k``-th nearest other row, ``(N,)``; compute once per real set.

    Raises:
        ValueError: If there are not more than ``k`` rows.
    """
    x = matrix(features, "features", rows=k + 1, device=device)
    with full_float32():
        return _radii_squared(_Blocks(x, x.mean(0), block), k).sqrt().cpu().numpy()


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], both best at 1."""

    precision: Estimate
    recall: Estimate


def precision_recall(
    real: Array,
    fake: Array,
    k: int = 3,
    block: int = 1024,
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
        real_radii: ``neighbour_radii(real, k)``, if known.
        device: Where distances are computed, in full float32 (double for double features).

    Raises:
        ValueError: If a set does not have more than ``k`` rows, or ``real_radii`` do not fit ``real``.
    """
    if k < 1 or block < 1:
        raise ValueError(f"k and block must be >= 1, got {k} and {block}")
    real, fake = pair(real, fake, rows=k + 1, device=device)
    centre = real.mean(0)
    with full_float32():
        real, fake = _Blocks(real, centre, block), _Blocks(fake, centre, block)
        if real_radii is None:
            real_reach = _radii_squared(real, k)
        else:
            real_reach = torch.as_tensor(real_radii).to(real.x).square()
            if real_reach.shape != (len(real),):
                raise ValueError(f"real_radii must have shape ({len(real)},), got {tuple(real_reach.shape)}")
        # |r - f|^2 <= reach(r)  <=>  |r|^2 - reach(r) - 2 r.f <= -|f|^2: one minimum over r answers it for a sample f
        real_offset, fake_offset = real.squares - real_reach, fake.squares - _radii_squared(fake, k)
        least_real, least_fake = fake.full(), real.full()
        for rows in fake.slices:
            block_of_fake = fake[rows]
            for columns in real.slices:
                products = torch.mm(block_of_fake, real[columns].T).mul_(-2)
                found = (products + real_offset[columns]).amin(1)
                least_real[rows] = torch.minimum(least_real[rows], found)
                found = products.add_(fake_offset[rows, None]).amin(0)
                least_fake[columns] = torch.minimum(least_fake[columns], found)
    return PrecisionRecall(share(least_real <= -fake.squares), share(least_fake <= -real.squares))


def nearest_distances(
    queries: Array | StoredRows, points: Array, block: int = 1024, device: str | torch.device = "cpu"
) -> Tensor:
    """Euclidean distance of each query ``(N, ...)`` to the nearest point ``(M, ...)``, ``(N,)``; a copy has exactly 0.

    Matrix products find the nearest point; its distance is taken from the difference. Stored queries are read a block
    at a time.
    """
    queries = queries if isinstance(queries, StoredRows) else torch.as_tensor(queries)
    points = matrix(torch.as_tensor(points).flatten(1), "points", device=device)
    if math.prod(queries.shape[1:]) != points.shape[1] or len(queries) == 0:
        raise ValueError(f"queries must be rows of {points.shape[1]} numbers, got shape {tuple(queries.shape)}")
    distances = []
    with full_float32():
        centred = _Blocks(points, points.mean(0), block)
        for part in queries.split(block):
            part = matrix(torch.as_tensor(part).flatten(1), "queries", device=device).to(points.dtype)
            least = part.new_full((len(part),), math.inf)
            nearest = torch.zeros(len(part), dtype=torch.long, device=part.device)
            for columns in centred.slices:
                products = torch.mm(part - centred.centre, centred[columns].T).mul_(-2)
                found, index = products.add_(centred.squares[columns]).min(1)
                nearest = torch.where(found < least, index + columns.start, nearest)
                least = torch.minimum(found, least)
            distances.append((part - points[nearest]).norm(dim=1))
    return torch.cat(distances).cpu()


def distance_ratio(near: Estimate, held_out: Estimate) -> Estimate:
    """Mean distance of samples to their nearest training image, over that of test images; about 1 is right.

    0 means that samples are copies of training images; a model that has learned the distribution is as far from its
    training images as new images are. Values above 1 say that samples lie off the data. The standard error is the delta
    method's over samples and test images; training images count as fixed.

    Args:
        near: Mean of the samples' ``nearest_distances`` to the training images.
        held_out: The same of test images.

    Raises:
        ValueError: If every test image is a training image.
    """
    if held_out.value == 0:
        raise ValueError("every test image is among the training images; the ratio has no denominator")
    ratio = near.value / held_out.value
    stderr = math.hypot(near.stderr, ratio * held_out.stderr) / held_out.value
    return Estimate(ratio, stderr, near.n)
