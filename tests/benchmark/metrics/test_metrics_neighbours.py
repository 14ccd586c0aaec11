"""Precision, recall and nearest neighbours: peers on the same features, collapse, copies."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc
from torch_fidelity.metric_prc import calculate_precision_recall_full

from benchmark.metrics.arrays import mean_estimate
from benchmark.metrics.neighbours import distance_ratio, nearest_distances, neighbour_radii, precision_recall
from benchmark.system.arrays import StoredRows, save_arrays


def cloud(n: int, d: int = 4, seed: int = 0, std: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, std, (n, d))


def ratio(samples: np.ndarray, train: np.ndarray, test: np.ndarray):
    return distance_ratio(*(mean_estimate(nearest_distances(images, train)) for images in (samples, test)))


def values(*args, **kwargs) -> tuple[float, float]:
    found = precision_recall(*args, **kwargs)
    return found.precision.value, found.recall.value


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [16, 64, 1000])
def test_counts_equal_those_of_both_peers(k, block):
    real, fake = cloud(203), cloud(150, seed=1, std=0.8)
    ours = values(real, fake, k=k, block=block)
    assert ours == pytest.approx(calculate_precision_recall_full(*map(torch.from_numpy, (fake, real)), k), abs=1e-7)
    theirs = compute_prdc(real, fake, k)
    assert ours == (theirs["precision"], theirs["recall"])


def test_float32_features_far_from_the_origin_count_as_double_ones_do():
    mixing = cloud(8, 64, seed=7)
    real, fake = cloud(300, 8) @ mixing + 50, cloud(300, 8, seed=1) @ mixing + 50
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    assert values(real, fake) == values(real.astype(np.float64), fake.astype(np.float64))


def test_radii_can_be_computed_once():
    real, fake = cloud(200).astype(np.float32), cloud(100, seed=1).astype(np.float32)
    radii = neighbour_radii(real, k=2, block=30)
    distances = np.linalg.norm(real[:, None] - real, axis=2)
    np.testing.assert_allclose(radii, np.sort(distances, 1)[:, 2], rtol=1e-4)  # column 0 is the point itself
    assert precision_recall(real, fake, k=2, real_radii=radii) == precision_recall(real, fake, k=2)


def test_identical_sets_have_precision_and_recall_one():
    assert values(cloud(200), np.random.default_rng(0).permutation(cloud(200))) == (1, 1)


def test_shrunk_samples_are_precise_and_recall_little():
    precision, recall = values(cloud(500), cloud(500, seed=1, std=0.3))
    assert precision == pytest.approx(0.99, abs=0.02)
    assert recall == pytest.approx(0.13, abs=0.05)


def test_collapsed_samples_lose_recall_not_precision():
    real = cloud(300)
    assert values(real, np.repeat(real[:1], 100, 0) + cloud(100, seed=1, std=1e-3)) == (1, 1 / 300)


@given(st.integers(5, 30), st.integers(5, 30), st.integers(0, 10**6))
def test_swapping_the_sets_swaps_precision_and_recall(n, m, seed):
    a, b = cloud(n, seed=seed), cloud(m, seed=seed + 1)
    assert values(a, b, block=8) == values(b, a, block=8)[::-1]


def test_nearest_distances_are_exact():
    points, queries = cloud(150, 9), cloud(40, 9, seed=1)
    expected = np.linalg.norm(queries[:, None] - points, axis=2).min(1)
    np.testing.assert_allclose(nearest_distances(queries, points, block=32), expected, rtol=1e-12)


def test_nearest_distances_of_stored_queries_are_the_same(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3)).astype(np.uint8)
    save_arrays(tmp_path / "a.npz", images=images[:200])
    found = nearest_distances(StoredRows(tmp_path / "a.npz", "images"), images[200:], block=32)
    assert found.equal(nearest_distances(images[:200], images[200:], block=32))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_copies_of_training_images_have_ratio_zero(dtype):
    images = np.random.default_rng(0).integers(0, 17, (300, 1, 8, 8)).astype(dtype)
    train, test = images[:200], images[200:]
    assert ratio(train[:50], train, test).value == 0
    assert ratio(test, train, test).value == 1


def test_ratio_knows_its_error():
    train = cloud(300, 5)
    found = [ratio(cloud(80, 5, 2 * i), train, cloud(80, 5, 2 * i + 1)) for i in range(1, 80)]
    ratios = [estimate.value for estimate in found]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    assert np.mean([estimate.stderr for estimate in found]) == pytest.approx(np.std(ratios), rel=0.25)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="fake must have at least 4 rows, got 3"):
        precision_recall(cloud(9), cloud(3))
    with pytest.raises(ValueError, match="features must have at least 4 rows, got 3"):
        neighbour_radii(cloud(3))
    with pytest.raises(ValueError, match=r"real_radii must have shape \(9,\), got \(8,\)"):
        precision_recall(cloud(9), cloud(9), real_radii=np.ones(8))
    with pytest.raises(ValueError, match="every test image is among the training images"):
        ratio(cloud(9), cloud(9), cloud(9))
