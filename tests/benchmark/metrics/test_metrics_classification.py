"""Accuracy, F1, calibration and proper scores: exact values, and scikit-learn's on the same predictions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, f1_score, log_loss, top_k_accuracy_score

from benchmark.metrics.classification import (
    accuracy,
    accuracy_over_levels,
    brier,
    calibration_error,
    hits,
    label_nll,
    macro_f1,
    positive_f1,
)

K = 6


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities that are often right, and labels."""
    y = torch.randint(K, (400,))
    return (torch.randn(400, K) + 2 * torch.eye(K)[y]).softmax(1), y


def test_accuracy_has_a_binomial_error():
    p, y = torch.eye(4)[torch.tensor([0, 1, 2, 3])], torch.tensor([0, 1, 2, 0])
    assert accuracy(p, y) == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)), 4)


def test_top_k_and_f1_equal_scikit_learn(answers):
    p, y = answers
    predicted = p.argmax(1)
    for k in range(2, K):
        assert hits(p, y, k).mean() == pytest.approx(top_k_accuracy_score(y, p, k=k, labels=range(K)))
    assert hits(p, y, K).all()
    assert macro_f1(p, y).value == pytest.approx(f1_score(y, predicted, average="macro"), rel=1e-6)
    assert positive_f1(p, y, positive=2).value == pytest.approx(f1_score(y == 2, predicted == 2), rel=1e-6)


def test_hits_are_those_of_probabilities_whatever_comes_before_and_ties_go_to_the_smaller_class(answers):
    p, y = answers
    for k in (1, 2, 5):
        found = hits(torch.stack([p.log(), 7 * p]), y, k)
        assert found.shape == (2, len(y))
        assert (found == hits(p, y, k)).all()
    assert hits(np.zeros((3, 4)), np.array([0, 1, 2]), 2).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="1 of 12 scores are NaN or infinite"):
        hits(np.where(np.arange(12).reshape(3, 4) == 5, np.nan, 0.0), np.array([0, 1, 2]))


@pytest.mark.parametrize("classes", [3, 10, 12, 100])
def test_f1_of_perfect_answers_is_one_and_no_more(classes):
    y = np.arange(classes)
    assert macro_f1(np.eye(classes), y).value == pytest.approx(1, abs=1e-6)
    assert macro_f1(np.eye(classes), y).value <= 1


def test_f1_is_zero_where_nothing_is_found():
    assert positive_f1(np.eye(2)[[0, 0, 0]], np.array([0, 1, 1])).value == 0


def test_calibration_error_of_confident_guesses_is_their_excess():
    p = np.tile([0.9, 0.1], (100, 1))
    y = np.arange(100) % 2  # right half of the time, sure to 0.9
    found = calibration_error(p, y)
    assert found.value == pytest.approx(0.4, abs=1e-6)
    assert found.stderr == pytest.approx(0.05, rel=0.25)
    assert calibration_error(np.eye(2)[y], y).value == 0


def test_proper_scores_of_certain_and_of_even_guesses_are_known():
    y = np.array([0, 2, 1])
    np.testing.assert_array_equal(brier(np.eye(4)[y], y), [0, 0, 0])
    np.testing.assert_array_equal(brier(np.eye(4)[[1, 1, 3]], y), [2, 2, 2])
    np.testing.assert_allclose(brier(np.full((3, 4), 0.25), y), 0.75**2 + 3 * 0.25**2)
    np.testing.assert_allclose(label_nll(np.full((3, 4), 7.0), y), math.log(4))
    np.testing.assert_allclose(label_nll(np.eye(4)[[1, 1, 3]] * 2000, y), 2000)  # the probability is 0 in double
    assert label_nll(np.eye(4)[y] * 2000, y).max() == 0


def test_proper_scores_equal_scikit_learn(answers):
    p, y = answers
    p = p.double() / p.double().sum(1, keepdim=True)
    for chosen, labels in ((p, y), (p[:, :2] / p[:, :2].sum(1, keepdim=True), y % 2)):
        classes = range(chosen.shape[1])
        theirs = brier_score_loss(labels, chosen, labels=classes, scale_by_half=False)
        assert brier(chosen, labels).mean() == pytest.approx(theirs, rel=1e-6)
        assert label_nll(5 + chosen.log(), labels).mean() == pytest.approx(
            log_loss(labels, chosen, labels=classes), rel=1e-6
        )


def test_errors_of_f1_and_calibration_are_the_scatter_of_repeated_draws():
    y = torch.randint(3, (24_000,))
    p = (torch.randn(len(y), 3) + torch.eye(3)[y]).mul(2).softmax(1)
    parts = list(zip(p.split(300), y.split(300), strict=True))
    for metric in (macro_f1, positive_f1, calibration_error):
        scatter = np.std([metric(*part, repeats=2).value for part in parts])
        stderr = np.mean([metric(*part).stderr for part in parts[:4]])
        assert stderr == pytest.approx(scatter, rel=0.25), metric.__name__


def test_accuracy_over_levels_takes_images_as_the_unit():
    right = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], bool)
    found = accuracy_over_levels(right)
    assert [level.value for level in found.per_level] == [1, 0.5, 0.5]
    assert found.mean == pytest.approx((2 / 3, np.std([1, 1, 1 / 3, 1 / 3], ddof=1) / 2, 4))


def test_logits_and_unlabeled_images_are_refused(answers):
    p, y = answers
    with pytest.raises(ValueError, match="apply softmax to logits"):
        accuracy(p.log(), y)
    with pytest.raises(ValueError, match=r"labels must lie in 0 .. 5, got -1"):
        calibration_error(p, torch.where(y == 0, -1, y))
    with pytest.raises(ValueError, match="labels must be 400 integers"):
        macro_f1(p, y[:-1])
    with pytest.raises(ValueError, match="apply softmax to logits"):
        brier(p.log(), y)
    with pytest.raises(ValueError, match="logits holds NaN or infinity"):
        label_nll(torch.full_like(p, torch.inf), y)
    with pytest.raises(ValueError, match=r"labels must lie in 0 .. 5, got -1"):
        label_nll(p.log(), torch.where(y == 0, -1, y))
    with pytest.raises(ValueError, match="shape"):
        accuracy_over_levels(np.ones(4, bool))
