"""Scores of single test images, kept in one ``.npz`` beside a results file.

The file has an array for each metric, ``(R, N)`` float32, whose means over images are the metric's values, with NaN
where a row has no such score; and ``cells``, ``seeds`` and ``keys``, ``(R,)``: cell, seed and stage of each row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np

from benchmark.errors import InputError, shown
from benchmark.results.definitions import definition_of
from benchmark.results.record import OK, Results
from benchmark.system.archive import Archive
from benchmark.system.arrays import save_arrays

FILE = "answers.npz"
INDEX = {"cells": "U", "seeds": "iu", "keys": "U"}
LARGEST = 2**30
"""Most bytes of an array that is read."""
CLOSE = 1e-5
"""Relative difference of a mean of float32 scores to the metric's value."""


@dataclass(frozen=True)
class Scored:
    """Scores of one cell and seed: ``(N,)`` by metric. ``key`` is the stage that computed the cell's numbers."""

    cell: str
    seed: int
    key: str
    scores: Mapping[str, np.ndarray]


def answers_path(results: Path) -> Path:
    """File beside a results file: ``answers.npz`` for a run's ``results.json``, else the same name with ``.npz``."""
    return results.with_name(FILE) if results.name == "results.json" else results.with_suffix(".npz")


def write_answers(path: Path, rows: Sequence[Scored]) -> None:
    """Write the scores of all rows, whole or not at all; without any, remove the file."""
    metrics = sorted({metric for row in rows for metric in row.scores})
    if not metrics:
        path.unlink(missing_ok=True)
        return
    arrays = {
        "cells": np.array([row.cell for row in rows]),
        "seeds": np.array([row.seed for row in rows], np.int64),
        "keys": np.array([row.key for row in rows]),
    }
    for metric in metrics:
        longest = max(len(row.scores[metric]) for row in rows if metric in row.scores)
        arrays[metric] = np.full((len(rows), longest), np.nan, np.float32)
        for place, row in zip(arrays[metric], rows, strict=True):
            if metric in row.scores:
                place[: len(row.scores[metric])] = row.scores[metric]
    save_arrays(path, **arrays)


class Answers:
    """The scores in a file, read when first asked for.

    Raises:
        InputError: If the file is damaged or of another kind; names it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._archive = path, Archive(path)
        self._read: dict[str, np.ndarray] = {}
        for name in self._archive.names:
            if name not in INDEX:
                try:
                    definition_of(name)
                except ValueError as error:
                    raise self._refused(f"array {shown(error, 150)}") from None
        cells, seeds, keys = (self._array(name, kinds) for name, kinds in INDEX.items())
        if not cells.ndim == seeds.ndim == keys.ndim == 1 or not len(cells) == len(seeds) == len(keys):
            raise self._refused("cells, seeds and keys must be rows of one length")
        self._rows = {(str(c), int(s)): i for i, (c, s) in enumerate(zip(cells, seeds, strict=True))}
        if len(self._rows) < len(cells):
            raise self._refused("a cell and seed stand twice")
        self._keys = keys

    def _refused(self, why: str) -> InputError:
        return InputError(f"{self.path}: {why}; write it anew by running the suite, or remove it")

    def _array(self, name: str, kinds: str) -> np.ndarray:
        if name not in self._archive.names:
            raise self._refused(f"holds no array {name}")
        declared = self._archive.declared(name)
        if declared.dtype.kind not in kinds or prod(declared.shape) * declared.dtype.itemsize > LARGEST:
            raise self._refused(f"{name} is {declared.dtype} {shown(declared.shape, 60)}")
        return self._archive.read(name)

    def _scores(self, metric: str) -> np.ndarray:
        if metric not in self._read:
            found = self._array(metric, "f")
            if found.ndim != 2 or len(found) != len(self._rows):
                raise self._refused(f"{shown(metric, 60)} has shape {found.shape}, not one row for each cell and seed")
            self._read[metric] = found
        return self._read[metric]

    def of(self, cell: str, seed: int, metric: str) -> np.ndarray | None:
        """Scores ``(N,)`` float64, or None if the file has none.

        Raises:
            InputError: If a score is infinite or lacks between others.
        """
        row = self._rows.get((cell, seed))
        if row is None or metric not in self._archive.names:
            return None
        scores = self._scores(metric)[row].astype(np.float64)
        count = int((~np.isnan(scores)).sum())
        if not np.isfinite(scores[:count]).all():
            raise self._refused(f"{shown(metric, 60)} of {shown(cell, 60)} has scores that are no numbers")
        return scores[:count] if count > 1 else None

    def of_seeds(self, cell: str, seeds: Iterable[int], metric: str) -> np.ndarray | None:
        """Scores ``(seeds, N)``; None unless every seed has as many.

        Raises:
            InputError: As ``of`` does.
        """
        found = [self.of(cell, seed, metric) for seed in seeds]
        if any(scores is None or len(scores) != len(found[0]) for scores in found):
            return None
        return np.stack(found)

    @cached_property
    def rows(self) -> dict[tuple[str, int, str], Scored]:
        """All rows by cell, seed and key."""
        metrics = [name for name in self._archive.names if name not in INDEX]
        found = {}
        for (cell, seed), index in self._rows.items():
            scores = {metric: self.of(cell, seed, metric) for metric in metrics}
            key = str(self._keys[index])
            kept = {metric: array for metric, array in scores.items() if array is not None}
            found[cell, seed, key] = Scored(cell, seed, key, kept)
        return found

    def check(self, results: Results) -> None:
        """Check that the scores are those behind the numbers.

        Raises:
            InputError: If a mean differs from its record.
        """
        for record in results.records:
            scores = self.of(record.cell, record.seed, record.metric) if record.status == OK else None
            if scores is not None and not np.isclose(scores.mean(), record.value, rtol=CLOSE, atol=CLOSE / 100):
                what = shown(f"{record.metric} of {record.cell} (seed {record.seed})", 120)
                raise self._refused(f"{what} has mean {scores.mean():.6g}, the results say {record.value:.6g}")


def read_answers(results: Path) -> Answers | None:
    """The answers beside a results file; None if there is no such file.

    Raises:
        InputError: If it is there and cannot be used.
    """
    path = answers_path(results)
    return Answers(path) if path.exists() else None


def answers_of(path: Path, results: Results) -> Answers | None:
    """The answers beside a results file that holds ``results``; None if there is no such file.

    Raises:
        InputError: If it is there and cannot be used, or has the scores of other results.
    """
    answers = read_answers(path)
    if answers is not None:
        answers.check(results)
    return answers


def merged_answers(results: Sequence[Path]) -> list[Scored]:
    """Rows beside several results files; a cell and seed that two of them scored by other code or settings is left out.

    Raises:
        InputError: If a file cannot be used.
    """
    found: dict[tuple[str, int], dict[str, Scored]] = {}
    for answers in filter(None, map(read_answers, results)):
        for row in answers.rows.values():
            found.setdefault((row.cell, row.seed), {})[row.key] = row
    return [row for by_key in found.values() if len(by_key) == 1 for row in by_key.values()]
