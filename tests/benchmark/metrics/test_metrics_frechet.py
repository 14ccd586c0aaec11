"""Frechet distance: closed forms, peers on the same features, and what must not change it."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from benchmark.metrics.frechet import Statistics, frechet_estimate, intra_class_frechet


def features(n: int, d: int = 12, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return (np.abs(np.random.default_rng(seed).normal(size=(n, d)) @ mixing) + shift).astype(np.float32)


def gaussian(mean: list[float], covariance: np.ndarray, n: int = 10_001) -> Statistics:
    """Statistics of a set with exactly these moments."""
    return Statistics(n, np.array(mean, float), np.array(covariance, float) * (n - 1))


def with_moments(mean: list[float], covariance: np.ndarray, n: int = 500) -> np.ndarray:
    """Features of exactly these moments."""
    x = np.random.default_rng(0).normal(size=(n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def distance(real: np.ndarray, fake: np.ndarray) -> float:
    return frechet_estimate(Statistics.of(real), fake).value


def test_two_gaussians_have_their_closed_form_distance():
    reference, x = gaussian([1, 0], np.diag([4, 1])), with_moments([0, 0], np.diag([1, 9]))
    assert frechet_estimate(reference, x).value == pytest.approx(6, abs=1e-12)  # 1 + (2 - 1)^2 + (1 - 3)^2


def test_distance_equals_the_peers_on_the_same_features():
    real, fake = features(400), features(300, seed=1, shift=0.2)
    a, b = Statistics.of(real), Statistics.of(fake)
    ours = frechet_estimate(a, fake).value
    sides = [fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    assert ours == pytest.approx(fid_statistics_to_metric(*sides, False)["frechet_inception_distance"], rel=1e-6)
    tensors = [torch.from_numpy(x) for s in (a, b) for x in (s.mean, s.covariance)]
    assert ours == pytest.approx(float(_compute_fid(*tensors)), rel=1e-6)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    shift = a.mean - b.mean
    whole = shift @ shift + np.trace(a.covariance + b.covariance - 2 * root)
    assert ours == pytest.approx(whole, rel=1e-9)


def test_covariance_is_unbiased():
    x = features(50)
    np.testing.assert_allclose(Statistics.of(x, block=7).covariance, np.cov(x.astype(np.float64), rowvar=False))


def test_order_blocks_and_a_large_common_offset_do_not_change_the_statistics():
    x = features(500, shift=1e4)  # would cost a sum of squares its digits
    whole, other = Statistics.of(x), Statistics.of(np.random.default_rng(5).permutation(x), block=80)
    np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(other.covariance, whole.covariance, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(whole.covariance, Statistics.of(x.astype(np.float64) - 1e4).covariance, rtol=1e-9)


def test_a_set_is_at_no_distance_from_itself():
    x = features(200)
    assert abs(distance(x, x)) < 1e-9 * np.trace(Statistics.of(x).covariance)


@pytest.mark.parametrize("n", [5, 40])
def test_singular_covariances_work(n):
    """Fewer images than features, and a constant feature."""
    real, fake = features(n, 20), features(n, 20, seed=1)
    real[:, 3] = fake[:, 3] = 2
    a, b = Statistics.of(real), Statistics.of(fake)
    assert a.root.shape == (20, min(n - 1, 19))
    np.testing.assert_allclose(a.root @ a.root.T, a.covariance, atol=1e-10)
    nuclear = np.linalg.svd((real - a.mean) @ (fake - b.mean).T, compute_uv=False).sum() / (n - 1)
    shift = a.mean - b.mean
    expected = shift @ shift + np.trace(a.covariance + b.covariance) - 2 * nuclear
    assert frechet_estimate(a, fake).value == pytest.approx(expected, rel=1e-6)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 8), st.integers(0, 10**6))
def test_distance_is_symmetric_and_not_negative(n, m, d, seed):
    a, b = features(n, d, seed), features(m, d, seed + 1)
    scale = np.trace(Statistics.of(a).covariance + Statistics.of(b).covariance)
    assert distance(a, b) >= -1e-6 * scale
    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-6 * scale)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.integers(0, 10**6))
def test_a_translation_costs_its_squared_length(shift, seed):
    x = features(40, len(shift), seed).astype(np.float64)
    assert distance(x, x + np.array(shift)) == pytest.approx(np.square(shift).sum(), abs=1e-8, rel=1e-8)


def test_stderr_is_the_scatter_of_repeated_draws():
    rng = np.random.default_rng(0)
    reference = gaussian([0.5, 0, 0], np.diag([1, 2, 3]))
    draws = [rng.normal(size=(400, 3)) for _ in range(200)]
    found = [frechet_estimate(reference, x) for x in draws]
    stderr = np.mean([estimate.stderr for estimate in found[:20]])
    assert stderr == pytest.approx(np.std([estimate.value for estimate in found]), rel=0.15)


def test_intra_class_distance_is_the_mean_over_classes():
    real, fake = features(90), features(60, seed=1)
    y_real, y_fake = np.arange(90) % 3, np.arange(60) % 3
    found = intra_class_frechet(real, y_real, fake, y_fake)
    parts = [(Statistics.of(real[y_real == y]), fake[y_fake == y]) for y in range(3)]
    expected = [frechet_estimate(of_real, own) for of_real, own in parts]
    assert found.per_class == dict(enumerate(expected))
    assert [one.n for one in expected] == [20, 20, 20]
    assert found.mean.value == pytest.approx(np.mean([one.value for one in expected]))
    assert found.mean.stderr == pytest.approx(np.linalg.norm([one.stderr for one in expected]) / 3)


def test_a_reference_of_one_and_the_same_image_has_a_distance():
    """That of two Gaussians of which one is a point: its squared distance and the other's variance."""
    point, x = np.ones((5, 3)), features(40, 3)
    found = frechet_estimate(Statistics.of(point), x)
    np.testing.assert_allclose(found.value, np.square(x.mean(0) - 1).sum() + np.var(x, axis=0, ddof=1).sum(), rtol=1e-6)


def test_unusable_sets_are_refused_by_name():
    a, one = Statistics.of(features(9)), Statistics.of(features(1))
    with pytest.raises(ValueError, match="n >= 2, got 1"):
        frechet_estimate(one, features(9))
    with pytest.raises(ValueError, match="features must have at least 2 rows, got 1"):
        frechet_estimate(a, features(1))
    with pytest.raises(ValueError, match="one width, got 12 and 3"):
        frechet_estimate(a, features(9, 3))
    with pytest.raises(ValueError, match="class 4 has 9 real images and 1 samples"):
        intra_class_frechet(features(9), [4] * 9, features(1), [4])
    with pytest.raises(ValueError, match=r"classes .* differ: \[4\] and \[5\]"):
        intra_class_frechet(features(9), [4] * 9, features(9), [5] * 9)
    with pytest.raises(ValueError, match="features holds NaN"):
        Statistics.of(np.full((3, 2), np.nan))


def test_statistics_of_two_sets_of_rows_are_the_sum_of_theirs():
    x = np.random.default_rng(0).normal(1000.0, 1.0, (57, 5))
    whole, parts = Statistics.of(x), Statistics.of(x[:20]) + Statistics.of(x[20:56]) + Statistics.of(x[56:])
    assert parts.n == whole.n
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
