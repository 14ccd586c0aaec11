"""Metrics of class probabilities: accuracy, F1, calibration and proper scores.

``probabilities`` are ``(N, K)`` with rows that sum to 1, never logits; ``labels`` are ``(N,)`` in ``0 .. K - 1``.
Functions return a value with its standard error over the images, or one value for each image; they raise ``ValueError``
on logits, on unlabeled images and on shapes that do not fit.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics.functional.classification import binary_f1_score, multiclass_calibration_error, multiclass_f1_score

from benchmark.metrics.arrays import (
    Array,
    Estimate,
    bootstrap,
    matrix,
    mean_estimate,
    probability_matrix,
    share,
    to_numpy,
)


def _checked(probabilities: Array, labels: Array) -> tuple[Tensor, Tensor]:
    p = probability_matrix(probabilities)
    y = torch.as_tensor(labels).detach().cpu()
    if y.shape != (len(p),) or y.is_floating_point():
        raise ValueError(f"labels must be {len(p)} integers, got shape {tuple(y.shape)} of {y.dtype}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must lie in 0 .. {p.shape[1] - 1}, got {int(y.min())} .. {int(y.max())}")
    return p.cpu(), y.long()


def accuracy(probabilities: Array, labels: Array) -> Estimate:
    """Share of images whose most probable class is their label, in [0, 1]; the first of equal classes counts."""
    p, y = _checked(probabilities, labels)
    return share(p.argmax(1) == y)


def hits(scores: Array, labels: Array, k: int = 1) -> np.ndarray:
    """Tell whether fewer than ``k`` classes rank before the label, ``(..., N)``; a tie goes to the smaller class.

    Args:
        scores: Logits or probabilities, ``(..., N, K)``.
        labels: ``(N,)``.
        k: 1 for accuracy.

    Raises:
        ValueError: If scores are NaN or infinite, which have no order.
    """
    scores, labels = to_numpy(scores), to_numpy(labels)[:, None]
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are NaN or infinite")
    own = np.take_along_axis(scores, np.broadcast_to(labels, (*scores.shape[:-1], 1)), -1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[-1]) < labels))
    return before.sum(-1) < k


def label_nll(logits: Array, labels: Array) -> np.ndarray:
    """Negative log-likelihood ``-log softmax(logits)[label]`` of each image in nats, float64 ``(N,)``; 0 is best.

    It takes logits ``(N, K)``: a probability that rounds to 0 would have no logarithm.
    """
    logits = matrix(logits, "logits").double().cpu()
    _, y = _checked(logits.softmax(1), labels)
    return to_numpy(cross_entropy(logits, y, reduction="none"))


def brier(probabilities: Array, labels: Array) -> np.ndarray:
    """Brier score ``sum_k (p_k - [k = label])**2`` of each image in [0, 2], float64 ``(N,)``; 0 is best.

    Source: Brier 1950, Eq. 2.
    """
    p, y = _checked(probabilities, labels)
    return to_numpy((p - one_hot(y, p.shape[1])).square().sum(1))


class LevelAccuracy(NamedTuple):
    """Accuracy at each level, and its mean over levels and images."""

    mean: Estimate
    per_level: list[Estimate]


def accuracy_over_levels(correct: Array) -> LevelAccuracy:
    """Accuracy at each noise level or time, and its mean over all.

    The mean's standard error is over images, since an image's answers at its levels are not independent.

    Args:
        correct: Whether each image was classified correctly at each level, ``(levels, images)``.
    """
    correct = to_numpy(correct).astype(bool)
    if correct.ndim != 2 or 0 in correct.shape:
        raise ValueError(f"correct must have shape (levels, images), got {correct.shape}")
    return LevelAccuracy(mean_estimate(correct.mean(0)), [share(level) for level in correct])


def _resampled(fn: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, repeats: int, seed: int) -> Estimate:
    stderr = bootstrap(lambda i: float(fn(a[i], b[i])), len(a), repeats, seed)
    return Estimate(min(float(fn(a, b)), 1.0), stderr, len(a))  # a mean of ones in single precision may exceed 1


def positive_f1(probabilities: Array, labels: Array, positive: int = 1, repeats: int = 100, seed: int = 0) -> Estimate:
    """``2 P R / (P + R)`` of one class against the rest, in [0, 1]; 0 if neither labels nor predictions hold it.

    Args:
        probabilities: ``(N, K)``; the prediction is the most probable class.
        labels: ``(N,)``.
        positive: The class.
        repeats: Resamples of the images for the standard error.
        seed: Seed of the resamples.
    """
    p, y = _checked(probabilities, labels)
    return _resampled(binary_f1_score, (p.argmax(1) == positive).int(), (y == positive).int(), repeats, seed)


def macro_f1(probabilities: Array, labels: Array, repeats: int = 100, seed: int = 0) -> Estimate:
    """Mean of the classes' F1, in [0, 1]; classes that neither labels nor predictions hold are left out."""
    p, y = _checked(probabilities, labels)
    classes = p.shape[1]

    def f1(predicted: Tensor, labels: Tensor) -> Tensor:
        return multiclass_f1_score(predicted, labels, num_classes=classes, average="macro")

    return _resampled(f1, p.argmax(1), y, repeats, seed)


def calibration_error(
    probabilities: Array, labels: Array, bins: int = 15, repeats: int = 100, seed: int = 0
) -> Estimate:
    """Expected calibration error: mean gap between confidence and accuracy over equal bins, in [0, 1]; 0 is best.

    Biased upwards on few images. The standard error is bootstrapped over the images.

    Source: Guo et al. 2017 (arXiv:1706.04599), Eq. 3.

    Args:
        probabilities: ``(N, K)``.
        labels: ``(N,)``.
        bins: Equal bins of [0, 1] for the largest probability.
        repeats: Resamples of the images for the standard error.
        seed: Seed of the resamples.
    """
    p, y = _checked(probabilities, labels)
    value = multiclass_calibration_error(p, y, num_classes=p.shape[1], n_bins=bins, norm="l1")
    confidence, predicted = p.max(1)
    gaps = (confidence - (predicted == y).double()).numpy()
    bin_of = np.minimum((confidence.numpy() * bins).astype(int), bins - 1)

    def error(chosen: np.ndarray) -> float:
        return float(np.abs(np.bincount(bin_of[chosen], gaps[chosen], minlength=bins)).sum() / len(y))

    return Estimate(float(value), bootstrap(error, len(y), repeats, seed), len(y))
