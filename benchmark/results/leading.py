"""Rows that lead a column: the best mean, and what no interval tells from it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchmark.results.answers_file import Answers
from benchmark.results.definitions import definition_of
from benchmark.results.paired import WIDE, paired_gain


class Side(NamedTuple):
    """Values of a cell by seed."""

    cell: str
    values: Mapping[int, float]


class Common(NamedTuple):
    """Values of two sides at their common seeds; scores ``(seeds, N)`` of single test images where both have them."""

    new: np.ndarray
    old: np.ndarray
    of_new: np.ndarray | None
    of_old: np.ndarray | None


def common(new: Side, old: Side, metric: str, answers: Answers | None) -> Common | None:
    """Match two sides by seed; None without two common seeds, for one training of each tells nothing of others."""
    seeds = sorted(new.values.keys() & old.values.keys())
    if len(seeds) < 2:
        return None
    values = (np.array([side.values[seed] for seed in seeds]) for side in (new, old))
    scores = (answers and answers.of_seeds(side.cell, seeds, metric) for side in (new, old))
    return Common(*values, *scores)


def undecided(new: Side, old: Side, metric: str, answers: Answers | None) -> bool:
    """Tell whether the interval of a gain, as claims are judged by, holds 0; False without two common seeds."""
    found = common(new, old, metric, answers)
    if found is None:
        return False
    definition = definition_of(metric)
    positive = (found.new > 0).all() and (found.old > 0).all()
    gain = paired_gain(replace(definition, ratio=definition.ratio and bool(positive)), *found, level=WIDE)
    return gain.low <= 0 <= gain.high


def leaders(sides: Sequence[Side], metric: str, answers: Answers | None = None) -> list[bool]:
    """Tell of each side whether it leads: has the best mean over seeds, or is ``undecided`` against the one that has.

    Nobody leads where all would, and a side of one seed does not.
    """
    merit = definition_of(metric).merit
    merits = [merit(float(np.mean(list(side.values.values())))) for side in sides]
    best = sides[int(np.argmax(merits))]
    if len(best.values) < 2:
        return [False] * len(sides)
    ahead = [
        own == max(merits) or undecided(side, best, metric, answers) for side, own in zip(sides, merits, strict=True)
    ]
    return [False] * len(sides) if all(ahead) else ahead
