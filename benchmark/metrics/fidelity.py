"""Distances of generated images from real ones, by features or class probabilities of both.

Real images come first, samples second. Numbers from different networks, counts or settings are never compared.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from benchmark.metrics.arrays import Array, Estimate, matrix, pair, probability_matrix, to_numpy


def inception_score(probabilities: Array, splits: int = 10, seed: int | None = 0) -> Estimate:
    """``exp(mean KL(p(y | x) || p(y)))``, in [1, K], higher is better; the mean over equal splits.

    The standard error is ``IS * std(KL) / sqrt(n)``, exact to first order: the marginal's own error cancels.

    Source: Salimans et al. 2016 (arXiv:1606.03498), Sec. 4.

    Args:
        probabilities: Class probabilities of each sample, ``(N, K)``.
        splits: Papers split 50,000 samples into 10; smaller splits give smaller scores.
        seed: Seed of the shuffle before splitting; None keeps the order, which is wrong for samples sorted by class.

    Raises:
        ValueError: If there are fewer samples than splits, or rows are no distributions.
    """
    p = probability_matrix(probabilities)
    n = len(p)
    if not 1 <= splits <= n:
        raise ValueError(f"splits must be 1 to the number of samples, {n}, got {splits}")
    if seed is not None:
        p = p[np.random.default_rng(seed).permutation(n)]
    scores, divergences = [], []
    for i in range(splits):
        part = p[i * n // splits : (i + 1) * n // splits]
        divergence = (torch.xlogy(part, part) - torch.xlogy(part, part.mean(0))).sum(1)
        scores.append(float(divergence.mean().exp()))
        divergences.append(divergence)
    spread = float(torch.cat(divergences).std(correction=0)) / math.sqrt(n)
    mean = float(np.mean(scores))
    return Estimate(mean, mean * spread, n)


def _kernel_sums(a: Tensor, b: Tensor, block: int) -> Tensor:
    """``sum_j k(a_i, b_j)`` of the cubic kernel ``k(a, b) = (a . b / D + 1)**3``, ``(len(a),)``."""
    sums = a.new_zeros(len(a))
    for i in range(0, len(a), block):
        for part in b.split(block):
            kernel = torch.mm(a[i : i + block], part.T).mul_(1 / a.shape[1]).add_(1)
            sums[i : i + block] += kernel.square().mul_(kernel).sum(1)
    return sums


def _own_kernel(a: Tensor) -> Tensor:
    return (a.square().sum(1) / a.shape[1] + 1) ** 3


def kernel_mean(real: Array, block: int = 1024, device: str | torch.device = "cpu") -> float:
    """Mean of the kernel over all pairs of different rows of ``real``; compute once per real set."""
    real = matrix(real, "real", rows=2, device=device).double()
    return float(((_kernel_sums(real, real, block) - _own_kernel(real)) / (len(real) - 1)).mean())


def kernel_distance(
    real: Array,
    fake: Array,
    block: int = 1024,
    device: str | torch.device = "cpu",
    real_mean: float | None = None,
) -> Estimate:
    """Kernel distance (KID on Inception features): unbiased squared MMD with the kernel ``(a . b / D + 1)**3``.

    0 is best; it is unbiased, so a good model may score a little below 0. All pairs are used, in double, where papers
    print the noisier mean over random subsets. The standard error is the first-order one of a U-statistic over the
    samples; it holds the real images fixed.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), Sec. 4.

    Args:
        real: Features ``(N, D)``.
        fake: Features ``(M, D)``.
        block: Rows of a block; ``block**2`` kernel values are held at a time.
        device: Device of the computation.
        real_mean: ``kernel_mean(real)``, if known.

    Raises:
        ValueError: If a set has fewer than two rows.
    """
    real, fake = (x.double() for x in pair(real, fake, rows=2, device=device))
    n, m = len(real), len(fake)
    within = (_kernel_sums(fake, fake, block) - _own_kernel(fake)) / (m - 1)
    across = _kernel_sums(fake, real, block) / n
    real_mean = kernel_mean(real, block, device) if real_mean is None else real_mean
    value = float(within.mean() - 2 * across.mean()) + real_mean
    return Estimate(value, 2 * float((within - across).std()) / math.sqrt(m), m)


class PRD(NamedTuple):
    """Shares in [0, 1], both best at 1: ``precision`` is the largest F_1/8, ``recall`` the largest F_8."""

    precision: Estimate
    recall: Estimate


def _curve(real: np.ndarray, fake: np.ndarray, angles: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of two histograms ``(..., bins)`` at slopes ``tan(angle)``, ``(..., angles)`` each."""
    slopes = np.tan(np.linspace(1e-10, math.pi / 2 - 1e-10, angles))
    precision = np.minimum(real[..., None, :] * slopes[:, None], fake[..., None, :]).sum(-1)
    return precision.clip(0, 1), (precision / slopes).clip(0, 1)


def _largest_f(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    total = beta**2 * precision + recall
    scores = (1 + beta**2) * precision * recall / np.where(total > 0, total, 1)
    return float(scores.max())


def prd_scores(real: np.ndarray, fake: np.ndarray, angles: int = 1001, beta: float = 8) -> tuple[float, float]:
    """Largest ``F_1/beta`` (precision) and ``F_beta`` (recall) of histograms; leading axes are runs, curves averaged.

    Args:
        real: Share of the real images in each cluster, ``(..., clusters)``.
        fake: Share of the samples in each cluster.
        angles: Points of the precision-recall curve.
        beta: Weight of recall in ``F_beta``.
    """
    curves = _curve(np.asarray(real, np.float64), np.asarray(fake, np.float64), angles)
    precision, recall = (curve.reshape(-1, angles).mean(0) for curve in curves)
    return _largest_f(precision, recall, 1 / beta), _largest_f(precision, recall, beta)


def prd(
    real: Array,
    fake: Array,
    clusters: int = 20,
    runs: int = 10,
    seed: int = 0,
    angles: int = 1001,
    repeats: int = 50,
) -> PRD:
    """Precision and recall for distributions: k-means on the union, then a curve between two histograms.

    A different metric from ``precision_recall``. The standard errors are bootstrapped over the samples, with clusters
    and real images held fixed.

    Source: Sajjadi et al. 2018 (arXiv:1806.00035), Sec. 3 and Sec. 4.1 (F_8 and F_1/8, 20 clusters, 10 runs).

    Args:
        real: Features ``(N, D)``.
        fake: Features ``(N, D)``, as many, since clusters favour the larger set.
        clusters: Clusters of k-means.
        runs: Clusterings; the curve is their mean.
        seed: Seed of the clusterings.
        angles: Points of the curve.
        repeats: Resamples for the standard errors.

    Raises:
        ValueError: If the counts differ or are below the number of clusters.
    """
    real, fake = (to_numpy(x) for x in pair(real, fake, rows=clusters))
    if len(real) != len(fake):
        raise ValueError(
            f"PRD needs as many samples as real images, got {len(fake)} and {len(real)}; cut the larger set"
        )
    n = len(real)
    union = np.concatenate([real, fake])
    assigned = np.stack([
        MiniBatchKMeans(clusters, n_init=10, batch_size=1024, random_state=seed + run).fit_predict(union)
        for run in range(runs)
    ])  # fmt: skip

    def histograms(labels: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(row, minlength=clusters) for row in labels]) / labels.shape[1]

    real_shares, fake_labels = histograms(assigned[:, :n]), assigned[:, n:]
    scores = prd_scores(real_shares, histograms(fake_labels), angles)

    rng = np.random.default_rng(seed)
    resampled = [
        prd_scores(real_shares, histograms(fake_labels[:, rng.integers(n, size=n)]), angles) for _ in range(repeats)
    ]
    precision, recall = (
        Estimate(score, float(error), n) for score, error in zip(scores, np.std(resampled, axis=0, ddof=1), strict=True)
    )
    return PRD(precision, recall)
