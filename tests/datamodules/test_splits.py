"""Splits: disjoint, stratified, a function of their seed, and one clear error for each impossible request."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.binary import AllLabels
from datamodules.digits import Digits
from datamodules.splits import (
    LabelFraction,
    LabelsPerClass,
    PositiveUnlabeled,
    proportional_counts,
    stratified,
    take_per_class,
)

Y = np.repeat(np.arange(4), [40, 30, 20, 10])
"""Labels of four classes in falling numbers."""


def rng(seed=0):
    return np.random.default_rng(seed)


@st.composite
def labels(draw):
    """Labels in which each of some classes occurs."""
    counts = draw(st.lists(st.integers(1, 30), min_size=2, max_size=6))
    return np.repeat(np.arange(len(counts)), counts), len(counts)


@given(data=labels(), share=st.floats(0.0, 1.0))
def test_proportional_counts_add_up_and_are_off_by_less_than_one(data, share):
    y, classes = data
    total = round(share * len(y))
    counts = proportional_counts(y, total, classes)
    assert counts.sum() == total
    assert (np.abs(counts - np.bincount(y) * total / len(y)) < 1).all()
    assert (counts <= np.bincount(y)).all()


@given(data=labels(), seed=st.integers(0, 100))
def test_a_stratified_split_has_distinct_indices_and_the_right_count_of_each_class(data, seed):
    y, classes = data
    total = len(y) - len(y) // 3
    counts = proportional_counts(y, total, classes)
    if counts.min() < 1:
        return
    taken = stratified(y, total, classes, rng(seed))
    assert len(np.unique(taken)) == total
    assert np.array_equal(np.bincount(y[taken], minlength=classes), counts)


def test_splits_are_a_function_of_the_seed():
    assert np.array_equal(stratified(Y, 40, 4, rng(1)), stratified(Y, 40, 4, rng(1)))
    assert not np.array_equal(stratified(Y, 40, 4, rng(1)), stratified(Y, 40, 4, rng(2)))


def test_labels_per_class_gives_each_class_the_same_number():
    labeled = LabelsPerClass(5).labeled(Y, 4, rng())
    assert np.bincount(Y[labeled]).tolist() == [5, 5, 5, 5]
    assert len(np.unique(labeled)) == 20


def test_a_fraction_of_labels_keeps_the_proportions():
    labeled = LabelFraction(0.2).labeled(Y, 4, rng())
    assert np.bincount(Y[labeled]).tolist() == [8, 6, 4, 2]


def test_positive_unlabeled_labels_positives_only_and_makes_the_task_binary():
    split = PositiveUnlabeled([1, 3], 8)
    labeled = split.labeled(Y, 4, rng())
    assert split.classes(4) == 2
    assert np.bincount(Y[labeled], minlength=4).tolist() == [0, 6, 0, 2]
    assert split.relabel(Y).tolist() == np.isin(Y, [1, 3]).astype(int).tolist()


RARE = np.repeat(np.arange(4), [96, 1, 1, 2])
IMPOSSIBLE = {
    "more than there are": (lambda: stratified(Y, 101, 4, rng()), "101 images were asked for, the data have 100"),
    "none": (lambda: stratified(Y, 0, 4, rng()), "0 images were asked for"),
    "a class starves": (lambda: stratified(Y, 4, 4, rng()), "4 images leave class 3 without an example; ask for more"),
    "a class is absent": (lambda: stratified(Y, 50, 5, rng()), "leave class 4 without an example"),
    "a class is too small": (lambda: LabelsPerClass(11).labeled(Y, 4, rng()), "11 images of class 3 .* have 10$"),
    "a class has no image": (lambda: take_per_class(Y, np.ones(5, int), rng()), "1 images of class 4 .* have 0$"),
    "a fraction of nothing": (lambda: LabelFraction(0.001).labeled(Y, 4, rng()), "0 images were asked for"),
    "a fraction above one": (lambda: LabelFraction(1.5), r"fraction must lie in \(0, 1\), got 1.5"),
    "a fraction of one": (lambda: LabelFraction(1.0), r"fraction must lie in \(0, 1\), got 1.0"),
    "a negative fraction": (lambda: LabelFraction(-0.5), r"fraction must lie in \(0, 1\), got -0.5"),
    "a fraction starves": (lambda: LabelFraction(0.02).labeled(Y, 4, rng()), "2 images leave class"),
    "no positive class": (lambda: PositiveUnlabeled([], 3), r"positive must name distinct classes, got \[\]"),
    "a positive class twice": (lambda: PositiveUnlabeled([1, 1], 3), "positive must name distinct classes"),
    "no such class": (lambda: PositiveUnlabeled([1, 4], 3).classes(4), r"classes 0\.\.3, got \[1, 4\]"),
    "no negatives": (lambda: PositiveUnlabeled([0, 1, 2, 3], 9).classes(4), "some but not all of the classes"),
    "no unlabeled positives": (
        lambda: PositiveUnlabeled([2, 3], 30).labeled(Y, 4, rng()),
        "leave none unlabeled.* 30$",
    ),
    "a positive class starves": (
        lambda: PositiveUnlabeled([0, 3], 2).labeled(RARE, 4, rng()),
        "2 images leave class 1",
    ),
}


@pytest.mark.parametrize(("ask", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_request_is_refused_with_one_line_that_names_it(ask, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ask()
    assert "\n" not in str(refusal.value)


def test_a_binary_task_may_have_all_its_labels():
    few, every = (Digits(labels=labels) for labels in (PositiveUnlabeled([1, 3], 20), AllLabels([1, 3])))
    assert every.task == few.task == "1, 3 against the rest"
    assert every.n_labeled == len(every.images("train")[1]) > 20
    assert every.images("train")[1].equal(few.images("train")[1])
