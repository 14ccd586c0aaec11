"""Helpers of the metrics: estimates with errors, checks of arguments, and full float32 products."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor


class Estimate(NamedTuple):
    """A number, its standard error (None if unknown) and its number of images or samples."""

    value: float
    stderr: float | None
    n: int


def mean_estimate(values: Array) -> Estimate:
    """Mean and ``std / sqrt(n)`` of one number per image.

    Raises:
        ValueError: With fewer than two values, or with NaN or infinity among them.
    """
    values = to_numpy(values).astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a standard error needs at least 2 values in one row, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} values are NaN or infinite")
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values))


def ratio_of_means(values: Array, others: Array) -> Estimate:
    """Mean of ``values`` over that of ``others``, pairs of one image each, with the delta method's standard error.

    Raises:
        ValueError: As ``mean_estimate``; if the mean of ``others`` is 0.
    """
    values, others = (to_numpy(x).astype(np.float64) for x in (values, others))
    below = mean_estimate(others).value
    if below == 0:
        raise ValueError("the mean of the other values is 0; the ratio has no denominator")
    ratio = float(values.mean() / below)
    return Estimate(ratio, mean_estimate(values - ratio * others).stderr / abs(below), len(values))


def share(hits: Array) -> Estimate:
    """Share of true entries in [0, 1], with the binomial standard error ``sqrt(p (1 - p) / n)``."""
    hits = to_numpy(hits).astype(bool)
    if hits.ndim != 1 or len(hits) < 1:
        raise ValueError(f"a share needs at least one entry in one row, got shape {hits.shape}")
    p = float(hits.mean())
    return Estimate(p, math.sqrt(p * (1 - p) / len(hits)), len(hits))


def bootstrap(fn: Callable[[np.ndarray], float], n: int, repeats: int = 100, seed: int = 0) -> float:
    """Standard error of ``fn`` over resamples of ``n`` images with replacement.

    Not for metrics of sets, such as Frechet distance or nearest neighbours: repeated images distort them.

    Args:
        fn: The metric of the images with the given indices ``(n,)``.
        n: Number of images.
        repeats: Resamples, at least 2; the relative error of the result is about ``1 / sqrt(2 * repeats)``.
        seed: Seed of the resamples.
    """
    if n < 2 or repeats < 2:
        raise ValueError(f"a bootstrap needs n >= 2 and repeats >= 2, got {n} and {repeats}")
    rng = np.random.default_rng(seed)
    return float(np.std([fn(rng.integers(n, size=n)) for _ in range(repeats)], ddof=1))


def to_numpy(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def matrix(values: Array, name: str, rows: int = 1, device: str | torch.device = "cpu") -> Tensor:
    """``values`` as a finite floating-point matrix ``(N, D)`` on ``device``; double stays double, the rest is float32.

    Raises:
        ValueError: If it is no such matrix or has fewer than ``rows`` rows; the message begins with ``name``.
    """
    values = torch.as_tensor(values).detach().to(device)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix (N, D), got shape {tuple(values.shape)}")
    if len(values) < rows:
        raise ValueError(f"{name} must have at least {rows} rows, got {len(values)}")
    if values.dtype != torch.float64:
        values = values.float()
    if not values.sum().isfinite() and not values.isfinite().all():  # the sum is the fast check
        raise ValueError(f"{name} holds NaN or infinity")
    return values


def pair(real: Array, fake: Array, rows: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """Features of real and generated images as matrices of one width and one precision, each of ``rows`` or more."""
    real, fake = matrix(real, "real", rows, device), matrix(fake, "fake", rows, device)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake features must have one width, got {real.shape[1]} and {fake.shape[1]}")
    dtype = torch.promote_types(real.dtype, fake.dtype)
    return real.to(dtype), fake.to(dtype)


def probability_matrix(values: Array) -> Tensor:
    """``values`` in double as a matrix ``(N, K)`` whose rows sum to 1.

    Raises:
        ValueError: If rows do not sum to 1 within 1e-3 or entries leave [0, 1], as logits would.
    """
    values = matrix(values, "probabilities").double()
    sums = values.sum(1, keepdim=True)
    if values.min() < 0 or (sums - 1).abs().max() > 1e-3:
        raise ValueError("probabilities must be >= 0 and sum to 1 in each row; apply softmax to logits first")
    return values / sums


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products in float32, not in a faster mode of training (TF32, bfloat16); cuDNN deterministic."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between rows, ``(N, D) -> (N,)`` in [-1, 1]; 0 where a row is zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), lengths, out=np.zeros(len(a)), where=lengths > 0)
