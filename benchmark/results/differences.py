"""Differences of two results, number by number, judged by tolerances and by paired intervals over common seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite
from statistics import fmean
from typing import Any, Literal

import numpy as np

from benchmark import errors
from benchmark.results.answers_file import Answers
from benchmark.results.definitions import MetricDefinition, column_order, definition_of
from benchmark.results.paired import FEWEST, gains, paired_gain
from benchmark.results.record import FAILED, NOT_APPLICABLE, OK, Record, Results

WORSE, BETTER, SAME = "worse", "better", "same"
NOT_COMPARABLE, INCOMPLETE, WARNING, NEW = "not comparable", "incomplete", "warning", "new"
Pair = tuple[Record, Record]
"""Old and new record of one number and seed."""


@dataclass(frozen=True)
class Change:
    """One number that both results have.

    ``old`` and ``new`` are means over the common ``seeds``, ``n`` samples each. ``gain`` and ``tolerance`` are in the
    metric's unit; ``gain`` is positive where ``new`` is better. A change that is not ``gating`` only warns.
    """

    cell: str
    metric: str
    protocol: dict[str, Any]
    seeds: tuple[int, ...]
    n: int
    old: float
    new: float
    gain: float
    tolerance: float
    tolerance_from: Literal[
        "absolute", "relative", "3 standard errors", "paired interval of seeds", "paired interval of seeds and images"
    ]
    verdict: Literal["worse", "better", "same"]
    gating: bool


@dataclass(frozen=True)
class Problem:
    """Numbers that cannot be compared, or are new. ``metrics`` is empty for a whole cell or suite."""

    kind: Literal["not comparable", "incomplete", "warning", "new"]
    cell: str
    metrics: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Comparison:
    """All differences of two results, in the order of cells and metrics; those of ``environment`` are not judged."""

    suites: tuple[str, str]
    commits: tuple[str, str]
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]
    environment: tuple[str, ...]

    def of_kind(self, kind: str) -> list[Problem]:
        """Problems of one kind."""
        return [problem for problem in self.problems if problem.kind == kind]

    def of_verdict(self, verdict: str, gating: bool | None = None) -> list[Change]:
        """Changes of one verdict; all, or those that gate or do not."""
        return [c for c in self.changes if c.verdict == verdict and gating in (None, c.gating)]

    def exit_code(self, strict: bool = False) -> int:
        """3 not comparable, else 4 incomplete, else 1 worse (with ``strict`` also: better), else 0."""
        if self.of_kind(NOT_COMPARABLE):
            return errors.NOT_COMPARABLE
        if self.of_kind(INCOMPLETE):
            return errors.INCOMPLETE
        if self.of_verdict(WORSE, gating=True) or (strict and self.of_verdict(BETTER, gating=True)):
            return errors.REGRESSION
        return errors.OK


def compare(old: Results, new: Results, answers: Sequence[Answers | None] = (None, None)) -> Comparison:
    """Compare number by number, over common seeds; seeds of only one side are no problem.

    Args:
        old: Results of before.
        new: Results to judge.
        answers: Scores of single test images of old and new, where they are kept.
    """
    changes: list[Change] = []
    problems: list[Problem] = []
    if old.suite != new.suite:
        problems.append(Problem(NOT_COMPARABLE, "", (), f"suite {old.suite} -> {new.suite}"))
    else:
        before, after = _by_cell(old), _by_cell(new)
        for cell in sorted(before | after):
            if cell not in after:
                problems.append(Problem(INCOMPLETE, cell, (), "cell missing"))
                continue
            problems += _failures(cell, after[cell])
            if cell not in before:
                problems.append(Problem(NEW, cell, (), "new cell"))
                continue
            for metric in sorted(before[cell] | after[cell], key=column_order):
                found = _metric(cell, metric, before[cell].get(metric, []), after[cell].get(metric, []), answers)
                changes += [item for item in found if isinstance(item, Change)]
                problems += [item for item in found if isinstance(item, Problem)]
    environment = tuple(differing(old.environment, new.environment))
    return Comparison((old.suite, new.suite), (old.commit, new.commit), tuple(changes), tuple(problems), environment)


def _by_cell(results: Results) -> dict[str, dict[str, list[Record]]]:
    cells: dict[str, dict[str, list[Record]]] = {}
    for record in results.sorted_records:
        cells.setdefault(record.cell, {}).setdefault(record.metric, []).append(record)
    return cells


def _failures(cell: str, metrics: dict[str, list[Record]]) -> list[Problem]:
    """Failed new numbers, which make the results incomplete; one problem for each error."""
    by_reason: dict[str, list[Record]] = {}
    for record in (record for metric in sorted(metrics, key=column_order) for record in metrics[metric]):
        if record.status == FAILED:
            by_reason.setdefault(record.reason or "", []).append(record)
    return [
        Problem(INCOMPLETE, cell, _metrics(records), f"failed with {seed_list(r.seed for r in records)}: {reason}")
        for reason, records in by_reason.items()
    ]


def _metric(
    cell: str, metric: str, before: Sequence[Record], after: Sequence[Record], answers: Sequence[Answers | None]
) -> list[Change | Problem]:
    """Changes and problems of one metric of one cell, for each protocol of the old results."""
    numbers = [record for record in before if record.status == OK]
    if before and not after:
        return [_problem(INCOMPLETE, before[0], f"missing, was {before[0].status}")]
    if not numbers:
        measured = [record for record in after if record.status == OK]
        was = before[0].status if before else "not there"
        return [_problem(NEW, measured[0], f"measured now, was {was}")] if measured else []
    known = {record.protocol_text for record in before}
    foreign = [record for record in after if record.protocol_text not in known]
    found: list[Change | Problem] = []
    replacing: set[str] = set()
    for protocol in dict.fromkeys(record.protocol_text for record in numbers):
        old = {record.seed: record for record in numbers if record.protocol_text == protocol}
        same = {record.seed: record for record in after if record.protocol_text == protocol}
        pairs = [(old[seed], same[seed]) for seed in old if seed in same and same[seed].status == OK]
        found += _unmatched(old, same, foreign, replacing)
        found += _matched(pairs, answers)
    added = {r.protocol_text: r for r in foreign if r.status == OK and r.protocol_text not in replacing}
    return [*found, *(_problem(NEW, record, f"new protocol {text}") for text, record in added.items())]


def _matched(pairs: Sequence[Pair], answers: Sequence[Answers | None]) -> list[Change | Problem]:
    """Comparison of numbers with the same identity, if their sample counts agree."""
    if not pairs:
        return []
    first = pairs[0][0]
    counts = sorted({(old.n, new.n) for old, new in pairs if old.n != new.n})
    if counts and definition_of(first.metric).gating:
        text = ", ".join(f"{old} -> {new}" for old, new in counts)
        return [_problem(NOT_COMPARABLE, first, f"sample count {text}")]
    seeds = [old.seed for old, _ in pairs]
    found = change(pairs, *(kept and kept.of_seeds(first.cell, seeds, first.metric) for kept in answers))
    if not isfinite(found.tolerance):
        return [_problem(NOT_COMPARABLE, first, "numbers too large to compare")]
    return [found]


def _unmatched(
    old: dict[int, Record], same: dict[int, Record], foreign: Sequence[Record], replacing: set[str]
) -> list[Problem]:
    """Problems of old numbers under one protocol (by seed) without new ones: lost, another protocol, or other seeds.

    Protocols of ``foreign`` records that replace old ones are added to ``replacing``.
    """
    first = next(iter(old.values()))
    without = {seed for seed in old if seed not in same or same[seed].status != OK}
    lost = [r for r in (*same.values(), *foreign) if r.seed in without and r.status != OK]
    found = []
    for reason in dict.fromkeys(record.reason for record in lost if record.status == NOT_APPLICABLE):
        seeds = seed_list(record.seed for record in lost if record.reason == reason)
        found.append(_problem(INCOMPLETE, first, f"was a number with {seeds}, now n/a: {reason}"))
    rest = without - {record.seed for record in lost}
    all_gone = len(without) == len(old)
    rivals = [r for r in foreign if r.status == OK and (r.seed in rest or (rest and all_gone))]
    if rivals:
        rival = min(rivals, key=lambda r: (len(differing(first.protocol, r.protocol)), r.protocol_text))
        replacing.add(rival.protocol_text)
        found.append(
            _problem(NOT_COMPARABLE, first, "protocol " + ", ".join(differing(first.protocol, rival.protocol)))
        )
    elif rest and all_gone and any(record.status == OK for record in same.values()):
        found.append(_problem(NOT_COMPARABLE, first, f"no common seed: {seed_list(old)} -> {seed_list(same)}"))
    elif rest and all_gone:
        found.append(_problem(INCOMPLETE, first, f"missing under protocol {first.protocol_text}"))
    return found


def _problem(kind: str, record: Record, message: str) -> Problem:
    """A problem of one metric; a warning for metrics that do not gate, such as timings."""
    warns = kind != NEW and not definition_of(record.metric).gating
    return Problem(WARNING if warns else kind, record.cell, (record.metric,), message)


def change(pairs: Sequence[Pair], of_old: np.ndarray | None = None, of_new: np.ndarray | None = None) -> Change:
    """Compare the old and new records of one number, seed by seed.

    The tolerance is the largest of the metric's absolute floor, its relative one times the old mean, and what chance
    moves: with at least ``FEWEST`` seeds half the paired interval that claims are judged by, here of differences for
    ratios too; with fewer, 3 combined standard errors ``sqrt(se_old**2 + se_new**2)`` of the records.

    Args:
        pairs: The records.
        of_old: Scores ``(seeds, N)`` of test images behind the old values, if they are kept.
        of_new: Those behind the new ones.
    """
    first = pairs[0][0]
    definition = replace(definition_of(first.metric), ratio=False)
    old, new = (np.array([record.value for record in records]) for records in zip(*pairs, strict=True))
    gain = float(gains(definition, new, old).mean())
    merit = fmean(definition.merit(record.value) for record, _ in pairs)
    tolerances = {"absolute": definition.absolute, "relative": definition.relative * abs(merit)}
    tolerances |= _chance(definition, pairs, (new, old), (of_new, of_old))
    source = list(tolerances)[int(np.argmax([*tolerances.values()]))]  # the first that is not a number, if any
    beyond = abs(gain) > tolerances[source] * (1 + 1e-9) + 1e-12  # 0.98 - 0.97 is more than 0.01 in floating point
    return Change(
        cell=first.cell,
        metric=first.metric,
        protocol=first.protocol,
        seeds=tuple(record.seed for record, _ in pairs),
        n=first.n or 0,
        old=float(old.mean()),
        new=float(new.mean()),
        gain=gain,
        tolerance=tolerances[source],
        tolerance_from=source,
        verdict=(BETTER if gain > 0 else WORSE) if beyond else SAME,
        gating=definition.gating,
    )


def _chance(
    definition: MetricDefinition,
    pairs: Sequence[Pair],
    values: Sequence[np.ndarray],
    scores: Sequence[np.ndarray | None],
) -> dict[str, float]:
    """The gain that chance alone explains, by the name of its source; values and scores are those of new and old."""
    if len(pairs) < FEWEST:
        return {"3 standard errors": 3 * hypot(*map(_within, zip(*pairs, strict=True)))}
    found = paired_gain(definition, *values, *scores)
    return {f"paired interval of seeds{'' if found.images is None else ' and images'}": (found.high - found.low) / 2}


def _within(records: Sequence[Record]) -> float:
    """Standard error of the mean of independent measurements; 0 if one has none."""
    if any(record.stderr is None for record in records):
        return 0.0
    return hypot(*(record.stderr for record in records)) / len(records)


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The entries that differ, as ``name old -> new``, sorted by name."""
    pairs = [(name, old.get(name, "(none)"), new.get(name, "(none)")) for name in sorted(old.keys() | new.keys())]
    return [f"{name} {first} -> {second}" for name, first, second in pairs if first != second]


def _metrics(records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(record.metric for record in records))


def seed_list(seeds: Iterable[int]) -> str:
    """``seed 0`` or ``seeds 0, 1``."""
    numbers = sorted(set(seeds))
    return f"seed{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
