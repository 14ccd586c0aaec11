"""Inception score, kernel distance and PRD: closed forms and peers on the same arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from benchmark.metrics.arrays import bootstrap
from benchmark.metrics.fidelity import inception_score, kernel_distance, prd, prd_scores


def cloud(n: int, d: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, d))


def test_balanced_one_hot_predictions_score_the_number_of_classes_and_constant_ones_score_one():
    assert inception_score(np.eye(7).repeat(10, 0), splits=1).value == pytest.approx(7)
    assert inception_score(np.full((50, 7), 1 / 7)).value == pytest.approx(1)
    assert inception_score(np.eye(7)[[2] * 50]).value == pytest.approx(1)


def test_inception_score_equals_torch_fidelity():
    logits = torch.from_numpy(cloud(103, 10))
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    ours = inception_score(logits.softmax(1), splits=10, seed=None)
    assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)


def test_samples_sorted_by_class_are_shuffled_before_splitting():
    by_class = np.eye(10).repeat(100, 0)
    assert inception_score(by_class, seed=None).value == pytest.approx(1)
    assert inception_score(by_class).value > 9


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.1, 20), st.integers(0, 10**6))
def test_inception_score_lies_between_one_and_the_number_of_classes(n, k, scale, seed):
    p = torch.from_numpy(scale * cloud(n, k, seed)).softmax(1)
    assert 1 - 1e-9 <= inception_score(p, splits=1).value <= k + 1e-9


def test_inception_stderr_is_the_scatter_of_repeated_draws():
    p = torch.from_numpy(2 * cloud(20_000, 5)).softmax(1).numpy()
    scores = [inception_score(part, splits=1) for part in np.split(p, 100)]
    assert scores[0].stderr == pytest.approx(np.std([s.value for s in scores]), rel=0.25)


def test_kernel_distance_equals_torch_fidelity():
    real, fake = cloud(120), cloud(120, seed=1, shift=0.3)
    tensors = torch.from_numpy(fake), torch.from_numpy(real)
    theirs = kid_features_to_metric(*tensors, kid_subset_size=120, kid_subsets=1, verbose=False)
    assert kernel_distance(real, fake, block=32).value == pytest.approx(
        theirs["kernel_inception_distance_mean"], rel=1e-6
    )


def test_kernel_distance_is_unbiased_and_knows_its_error():
    real = cloud(500)
    found = [kernel_distance(real, cloud(100, seed=i, shift=0.4)) for i in range(1, 80)]
    values = [estimate.value for estimate in found]
    assert np.mean([estimate.stderr for estimate in found]) == pytest.approx(np.std(values), rel=0.25)
    same = [kernel_distance(cloud(60, seed=i), cloud(40, seed=1000 + i)).value for i in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(200)
    assert min(same) < 0 < max(same)


def test_prd_scores_have_their_closed_form():
    precision, recall = prd_scores(np.array([0.5, 0.5, 0]), np.array([1.0, 0, 0]))
    assert precision == pytest.approx(0.9848, abs=1e-4)
    assert recall == pytest.approx(0.5039, abs=1e-4)
    assert prd_scores(np.array([0.3, 0.7]), np.array([0.3, 0.7])) == pytest.approx((1, 1), abs=1e-6)
    assert prd_scores(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx((0, 0), abs=1e-6)


def test_prd_sees_dropped_modes_as_lost_recall():
    centres = 20 * np.eye(6)
    real = cloud(600) + centres[np.arange(600) % 6]
    fake = cloud(600, seed=1) + centres[np.arange(600) % 3]
    found = prd(real, fake, clusters=6, runs=2)
    assert found.precision.value > 0.95
    assert found.recall.value == pytest.approx(0.5, abs=0.05)
    assert found.precision.stderr < 0.02
    same = prd(real, real, runs=2)
    assert (same.precision.value, same.recall.value) == pytest.approx((1, 1), abs=1e-6)


def test_bootstrap_of_a_mean_is_its_standard_error():
    x = cloud(500, 1)[:, 0]
    assert bootstrap(lambda i: x[i].mean(), 500, repeats=400) == pytest.approx(x.std() / np.sqrt(500), rel=0.15)


def test_too_few_images_and_logits_are_refused():
    with pytest.raises(ValueError, match="splits must be 1 to the number of samples, 4, got 10"):
        inception_score(np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match="apply softmax"):
        inception_score(cloud(30))
    with pytest.raises(ValueError, match="real must have at least 2 rows, got 1"):
        kernel_distance(cloud(1), cloud(9))
    with pytest.raises(ValueError, match="fake must have at least 20 rows, got 9"):
        prd(cloud(30), cloud(9))
    with pytest.raises(ValueError, match="as many samples as real images, got 40 and 30"):
        prd(cloud(30), cloud(40))
    with pytest.raises(ValueError, match="one width, got 6 and 2"):
        kernel_distance(cloud(30), cloud(30, 2))
