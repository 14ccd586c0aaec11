"""Frechet distance between sets of features, from their means and covariances, in double precision."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dsygst

from benchmark.metrics.arrays import Array, Estimate, matrix, to_numpy


@dataclass(frozen=True, eq=False)
class Statistics:
    """Count, mean and scatter of features ``(N, D)``, in double.

    Sums of squares are taken about the mean, so that a large common offset costs no digits.

    Args:
        n: Rows seen.
        mean: ``(D,)``.
        scatter: Sum of outer products of the deviations from the mean, ``(D, D)``.
    """

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: Array, block: int = 1024) -> "Statistics":
        """Statistics of a matrix ``(N, D)``; ``block`` rows at a time are held in double."""
        x = to_numpy(matrix(features, "features"))
        mean = x.mean(0, dtype=np.float64)
        upper = np.zeros((len(mean), len(mean)), order="F")
        deviations = np.empty((min(block, len(x)), len(mean)))
        for i in range(0, len(x), block):
            part = deviations[: len(x) - i]
            np.subtract(x[i : i + block], mean, out=part)
            upper = dsyrk(1.0, part.T, beta=1.0, c=upper, overwrite_c=True)
        return cls(len(x), mean, _mirrored(upper).T)

    def __add__(self, other: "Statistics") -> "Statistics":
        """Statistics of the rows of both."""
        n, apart = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.n * other.n / n)
        return Statistics(n, self.mean + apart * (other.n / n), scatter)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the covariance, ``n - 1``.

        Raises:
            ValueError: With fewer than two rows.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs n >= 2, got {self.n}")
        return self.n - 1

    @cached_property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance ``(D, D)``."""
        return self.scatter / self.freedom

    @cached_property
    def root(self) -> np.ndarray:
        """A square root ``R`` with ``R @ R.T == covariance``, computed once.

        It is Cholesky's if the covariance has full rank, else from its eigenvectors, ``(D, rank)``.
        """
        lower, failed = dpotrf(self.covariance.T, lower=1, clean=1)  # LAPACK's matrices are stored by columns
        if not failed:
            return lower
        values, vectors = eigh(self.covariance, driver="evd", check_finite=False)
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        return vectors[:, kept] * np.sqrt(values[kept])

    @cached_property
    def root_is_triangular(self) -> bool:
        return self.root.shape[0] == self.root.shape[1] and not np.triu(self.root, 1).any()


def _mirrored(upper: np.ndarray, block: int = 256) -> np.ndarray:
    """Complete an upper triangle to a symmetric matrix, in place."""
    for start in range(0, len(upper), block):
        end = start + block
        upper[end:, start:end] = upper[start:end, end:].T
        diagonal = upper[start:end, start:end]
        diagonal += np.triu(diagonal, 1).T
    return upper


def _product(a: Statistics, b: Statistics) -> np.ndarray:
    """Lower triangle of the symmetric ``R.T @ b.scatter @ R``, ``R = a.root``, with the product's eigenvalues.

    The scatter in place of the covariance makes them ``b.freedom`` times as large and saves a copy.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features must have one width, got {len(a.mean)} and {len(b.mean)}")
    if a.root_is_triangular:  # half the work of two products
        return dsygst(b.scatter.T, a.root, itype=2, lower=1)[0]
    return a.root.T @ (b.scatter @ a.root)


def frechet_estimate(reference: Statistics, features: Array) -> Estimate:
    """``|mu_1 - mu_2|**2 + tr(S_1 + S_2 - 2 (S_1 S_2)**(1/2))`` and its standard error over draws of the samples.

    0 is best, without upper bound. The trace of the root is a sum of roots of the eigenvalues of the symmetric
    ``R.T S_2 R`` with ``S_1 = R R.T``; the reference keeps its ``R``. Rounding may leave a distance of zero at -1e-7 or
    so of the total variance when a covariance is singular; the number is not clipped. It is biased upwards by about a
    constant over ``n``: compare only distances with equal counts. Below ``n = D`` it is a number, but hardly a distance
    between distributions.

    The error is ``std(psi) / sqrt(n)`` with the first-order effect ``psi(x) = 2 (mu - mu_ref) . z + |z|**2 - z . T z``
    of one sample, ``z = x - mu`` and ``T`` the optimal map between the two Gaussians. One eigendecomposition gives
    both; nothing is resampled, and the reference counts as fixed. The error is the scatter of repeated runs, not the
    bias that goes with ``n``.

    Source: Heusel et al. 2017 (arXiv:1706.08500), Eq. 6; Dowson and Landau 1982.

    Args:
        reference: Statistics of real images.
        features: Features of generated images ``(N, D)``.

    Raises:
        ValueError: If a set has fewer than two rows or the widths differ.
    """
    features = to_numpy(matrix(features, "features", rows=2)).astype(np.float64)
    samples = Statistics.of(features)
    values, vectors = eigh(_product(reference, samples), driver="evd", check_finite=False)
    values /= samples.freedom
    kept = values > len(values) * np.finfo(np.float64).eps * values.max(initial=0)
    shift = samples.mean - reference.mean
    traces = sum(np.trace(side.scatter) / side.freedom for side in (reference, samples))
    distance = float(shift @ shift + traces - 2 * np.sqrt(values.clip(min=0)).sum())
    z = features - samples.mean
    mapped = z @ (reference.root @ (vectors[:, kept] * values[kept] ** -0.25))
    effect = 2 * z @ shift + (z * z).sum(1) - (mapped * mapped).sum(1)
    return Estimate(distance, float(effect.std(ddof=1) / math.sqrt(len(features))), len(features))


class IntraClass(NamedTuple):
    """Frechet distance of each class, by class index, and their arithmetic mean."""

    mean: Estimate
    per_class: dict[int, Estimate]


def intra_class_frechet(real: Array, real_labels: Array, features: Array, labels: Array) -> IntraClass:
    """Frechet distance between real images and samples of each class, and the mean over classes; 0 is best.

    The standard errors are those of ``frechet_estimate``, the classes' samples being independent. One class at a time
    is held in double.

    Args:
        real: Features of real images ``(N, D)``.
        real_labels: Their classes ``(N,)``.
        features: Of generated images ``(M, D)``.
        labels: Their classes ``(M,)``, equally frequent.

    Raises:
        ValueError: If the classes differ, or one has fewer than two images.
    """
    (real, real_labels), (features, labels) = _labeled(real, real_labels), _labeled(features, labels)
    classes = np.unique(labels)
    if not np.array_equal(np.unique(real_labels), classes):
        raise ValueError(f"classes of real images and samples differ: {np.unique(real_labels)} and {classes}")
    per_class = {}
    for y in classes:
        reference, own = (x[of == y] for x, of in ((real, real_labels), (features, labels)))
        if min(len(reference), len(own)) < 2:
            raise ValueError(f"class {y} has {len(reference)} real images and {len(own)} samples; both need >= 2")
        per_class[int(y)] = frechet_estimate(Statistics.of(reference), own)
    values, errors = np.array([[found.value, found.stderr] for found in per_class.values()]).T
    stderr = math.sqrt(float(np.square(errors).sum())) / len(per_class)
    return IntraClass(Estimate(float(values.mean()), stderr, len(features)), per_class)


def _labeled(features: Array, labels: Array) -> tuple[np.ndarray, np.ndarray]:
    features, labels = to_numpy(matrix(features, "features")), to_numpy(labels)
    if labels.shape != (len(features),):
        raise ValueError(f"labels must have shape ({len(features)},), got {labels.shape}")
    return features, labels
