"""Choice of labeled images: stratified, seeded, and refused in one line where the data have too few."""

from abc import ABC, abstractmethod

import numpy as np
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt

Array = np.ndarray


def take_per_class(y: Array, counts: Array, rng: np.random.Generator) -> Array:
    """Indices of ``counts[k]`` random images of each class ``k``, ascending.

    Raises:
        ValueError: If a class has fewer images than are asked for.
    """
    taken, places = [], np.argsort(y, kind="stable")
    ends = np.cumsum(np.bincount(y, minlength=len(counts)))
    for k, count in enumerate(counts):
        members = places[ends[k - 1] if k else 0 : ends[k]]
        if len(members) < count:
            raise ValueError(f"{count} images of class {k} were asked for, the data have {len(members)}")
        taken.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(taken))


def proportional_counts(y: Array, total: int, classes: int) -> Array:
    """``total`` divided over the classes as they occur in ``y``, by largest remainders."""
    share = np.bincount(y, minlength=classes) * (total / len(y))
    counts = np.floor(share).astype(int)
    largest = np.argsort(counts - share, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def stratified(y: Array, total: int, classes: int, rng: np.random.Generator) -> Array:
    """Indices of ``total`` images with the class proportions of ``y``.

    Raises:
        ValueError: If there are fewer images than that, or a class would be left without one.
    """
    if not 0 < total <= len(y):
        raise ValueError(f"{total} images were asked for, the data have {len(y)}")
    counts = proportional_counts(y, total, classes)
    if counts.min() < 1:
        raise ValueError(f"{total} images leave class {counts.argmin()} without an example; ask for more")
    return take_per_class(y, counts, rng)


def held_out(y: Array, fraction: float, classes: int, rng: np.random.Generator) -> Array:
    """Indices of a share of the images for choices, with the class proportions of ``y``.

    A class that is too small for its share gives one image, or none where it has but one.

    Raises:
        ValueError: If there are fewer images in the share than classes.
    """
    total = round(fraction * len(y))
    if total < classes:
        raise ValueError(
            f"validation_fraction {fraction} of {len(y)} images leaves a class without an example; ask for more"
        )
    counts, there = proportional_counts(y, total, classes), np.bincount(y, minlength=classes)
    counts = np.where(there < 2, 0, np.maximum(counts, 1))
    return take_per_class(y, counts, rng)


class LabelSplit(ABC):
    """Choice of the labeled training images, and of the task's classes."""

    task: str | None = None
    """Meaning of the task's classes, where they are not the data set's."""

    def relabel(self, y: Array) -> Array:
        """Labels of the task from labels of the data set."""
        return y

    def classes(self, of_data: int) -> int:
        """Number of classes of the task."""
        return of_data

    def class_names(self, of_data: list[str]) -> list[str]:
        """Names of the task's classes, from those of the data set."""
        return of_data

    @abstractmethod
    def labeled(self, y: Array, classes: int, rng: np.random.Generator) -> Array:
        """Indices of the images that keep their label, from the data set's labels ``y`` of the training part."""


class LabelsPerClass(LabelSplit):
    """The same number of labels for every class.

    Args:
        count: Labeled images a class.
    """

    def __init__(self, count: PositiveInt) -> None:
        self.count = count

    def labeled(self, y: Array, classes: int, rng: np.random.Generator) -> Array:
        return take_per_class(y, np.full(classes, self.count), rng)


class LabelFraction(LabelSplit):
    """A fraction of the labels, in the proportions of the classes.

    Args:
        fraction: Share of the training part, in (0, 1).
    """

    def __init__(self, fraction: OpenUnitInterval) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
        self.fraction = fraction

    def labeled(self, y: Array, classes: int, rng: np.random.Generator) -> Array:
        return stratified(y, round(self.fraction * len(y)), classes, rng)


class PositiveUnlabeled(LabelSplit):
    """A binary task in which only some positives are labeled; class 1 is positive.

    Args:
        positive: Classes of the data set that count as positive.
        count: Labeled positives, in the proportions of those classes.
    """

    def __init__(self, positive: list[NonNegativeInt], count: PositiveInt) -> None:
        if not positive or len(set(positive)) != len(positive):
            raise ValueError(f"positive must name distinct classes, got {positive}")
        self.positive, self.count = positive, count
        self.task = f"{', '.join(map(str, positive))} against the rest"

    def relabel(self, y: Array) -> Array:
        return np.isin(y, self.positive).astype(np.int64)

    def classes(self, of_data: int) -> int:
        outside = [k for k in self.positive if k >= of_data]
        if outside or len(self.positive) == of_data:
            raise ValueError(f"positive must be some but not all of the classes 0..{of_data - 1}, got {self.positive}")
        return 2

    def class_names(self, of_data: list[str]) -> list[str]:
        return ["the rest", ", ".join(of_data[k] for k in self.positive)]

    def labeled(self, y: Array, classes: int, rng: np.random.Generator) -> Array:
        positives = np.flatnonzero(np.isin(y, self.positive))
        if self.count >= len(positives):
            raise ValueError(
                f"{self.count} labeled positives leave none unlabeled: the training part has {len(positives)}"
            )
        ranks = np.searchsorted(np.sort(self.positive), y[positives])
        return positives[stratified(ranks, self.count, len(self.positive), rng)]
