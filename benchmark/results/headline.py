"""One line a method: its main numbers, for the end of a run and for documents."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import fmean
from typing import Any

from benchmark.results.definitions import GENERATION, HEADLINE_METRICS, definition_of
from benchmark.results.markdown import escape, table
from benchmark.results.record import NOT_APPLICABLE, OK, Record, Results
from benchmark.results.rows import Entry, Row, mean_and_stderr, rows

METRICS = (
    *("accuracy/clean", "accuracy/middle", "accuracy/generated", "fd"),
    *("is", "precision", "recall", "nll"),
)
"""Metrics of a document's table, and headings of those whose names do not say what they are."""
HEADINGS = {
    "accuracy/clean": "accuracy",
    "accuracy/middle": "over noise",
    "accuracy/generated": "as asked",
    "is": "IS",
}
KINDS = {"estimate": "e", "bound": "b", "unnormalised": "u"}
"""Marks of likelihoods that are not exact."""
NORMAL = 1.959964


@dataclass(frozen=True)
class Line:
    """Numbers of one cell, those of samples at its largest guidance scale.

    ``entries`` holds one entry a metric, the first where it was measured under several protocols.
    """

    cell: str
    guidance_scale: float | None
    entries: dict[str, Entry]


def lines(results: Results, cells: Sequence[str] | None = None) -> list[Line]:
    """One line for each cell, in the order of `rows`."""
    by_cell: dict[str, list[Row]] = {}
    for row in rows(results, cells):
        by_cell.setdefault(row.cell, []).append(row)
    return [_line(cell, of_cell) for cell, of_cell in by_cell.items()]


def _line(cell: str, of_cell: list[Row]) -> Line:
    entries: dict[str, Entry] = {}
    for row in of_cell:  # scales rise, so that the largest is last
        for metric, found in row.entries.items():
            entries[metric] = next((entry for entry in found if entry.status == OK), found[0])
    return Line(cell, of_cell[-1].guidance_scale, entries)


def to_headline(results: Results, cells: Sequence[str] | None = None, floors: Collection[str] = frozenset()) -> str:
    """Markdown table of ``METRICS``, a row for each cell, floors last.

    ``0.793(14)`` is a mean over seeds with its standard error in units of the last digit.

    Args:
        results: Numbers to tabulate.
        cells: Cells to show and their order; all if None.
        floors: Cells for comparison that are no methods.
    """
    known = {record.cell for record in results.records}
    found = [line for line in lines(results, cells) if line.cell in known and (cells is None or line.cell in cells)]
    found.sort(key=lambda line: line.cell in floors)
    header = ["method", "labels", "scale", *map(_heading, METRICS)]
    body = []
    for line in found:
        name = f"*{escape(line.cell)}* (floor)" if line.cell in floors else escape(line.cell)
        scale = "" if line.guidance_scale is None else f"{line.guidance_scale:g}"
        body.append([name, _labels(line), scale, *(_number(line.entries.get(metric)) for metric in METRICS)])
    return table(header, body, left=1)


def _heading(metric: str) -> str:
    return f"{HEADINGS.get(metric, metric)} {definition_of(metric).arrow}"


def _labels(line: Line) -> str:
    """Number of training images whose class was told."""
    found = {entry.protocol["n_labeled"] for entry in line.entries.values() if "n_labeled" in entry.protocol}
    return escape(str(max(found))) if found else ""


def _number(entry: Entry | None) -> str:
    if entry is None or entry.status == NOT_APPLICABLE:
        return "–"
    if entry.status != OK:
        return entry.status
    kind = KINDS.get(entry.protocol.get("kind", ""))
    return with_error(entry.mean, entry.stderr) + (f" {kind}" if kind else "")


def with_error(mean: float, stderr: float | None) -> str:
    """A mean with three decimals and its standard error in units of the last digit; one without error alone."""
    if stderr is None:
        return f"{mean:.3f}"
    digits = 3 if stderr < 0.1 else max(0, 1 - floor(log10(stderr)))
    return f"{mean:.{digits}f}({round(stderr * 10**digits)})"


@dataclass(frozen=True)
class Difference:
    """Mean difference of two cells over common seeds, with its 95 % interval, in the metric's unit."""

    metric: str
    mean: float
    low: float
    high: float
    gain: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``undecided`` where the interval holds 0."""
        if self.low <= 0 <= self.high:
            return "undecided"
        return "better" if self.gain > 0 else "worse"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def difference(results: Results, first: str, second: str, metric: str) -> Difference | None:
    """``first`` minus ``second`` at their largest common guidance scale; None where a cell lacks the metric.

    The interval is Student's over differences of equal seeds; with one common seed it is normal, from the standard
    errors of both records.
    """
    ours, theirs = (_by_scale(results, cell, metric) for cell in (first, second))
    if definition_of(metric).table != GENERATION:
        ours, theirs = ({None: dict(*found.values())} if len(found) == 1 else {} for found in (ours, theirs))
    common = sorted(ours.keys() & theirs.keys(), key=lambda scale: (scale is not None, scale))
    if not common:
        return None
    old, new = theirs[common[-1]], ours[common[-1]]
    pairs = [(new[seed], old[seed]) for seed in sorted(new.keys() & old.keys())]
    if not pairs:
        return None
    mean, stderr = mean_and_stderr([a.value - b.value for a, b in pairs])
    if stderr is None:
        half = NORMAL * sum((record.stderr or 0.0) ** 2 for record in pairs[0]) ** 0.5
    else:
        from scipy.special import stdtrit

        half = float(stdtrit(len(pairs) - 1, 0.975)) * stderr
    gain = fmean(definition_of(metric).merit(a.value) - definition_of(metric).merit(b.value) for a, b in pairs)
    return Difference(metric, mean, mean - half, mean + half, gain)


def _by_scale(results: Results, cell: str, metric: str) -> dict[Any, dict[int, Record]]:
    """Measured records of a cell by guidance scale and seed."""
    found: dict[Any, dict[int, Record]] = {}
    for record in results.sorted_records:
        if (record.cell, record.metric, record.status) == (cell, metric, OK):
            found.setdefault(record.protocol.get("guidance_scale"), {}).setdefault(record.seed, record)
    return found


def to_screen(results: Results, cells: Sequence[str], floors: Collection[str]) -> Any:
    """Table of ``HEADLINE_METRICS`` for a terminal, by rich: six columns, a line for each cell."""
    from rich.table import Column, Table
    from rich.text import Text

    headings = [Column(Text(_heading(metric)), justify="right", no_wrap=True) for metric in HEADLINE_METRICS]
    screen = Table(Column("cell", overflow="fold"), *headings, box=None, pad_edge=False)
    for line in lines(results, cells):
        name = Text(line.cell + ("" if line.guidance_scale is None else f" @{line.guidance_scale:g}"))
        if line.cell in floors:
            name.append(" (floor)", style="dim")
        screen.add_row(name, *(Text(_number(line.entries.get(metric))) for metric in HEADLINE_METRICS))
    return screen
