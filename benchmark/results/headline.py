"""One line a method: its main numbers, for the end of a run and for documents."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from statistics import mode
from typing import Any

from benchmark.errors import shown
from benchmark.results.answers_file import Answers
from benchmark.results.definitions import GENERATION, HEADLINE_METRICS, definition_of
from benchmark.results.leading import Side, common, leaders
from benchmark.results.markdown import escape, table
from benchmark.results.paired import WIDE, gains, paired_gain
from benchmark.results.record import FAILED, NOT_APPLICABLE, OK, UNNORMALISED, Record, Results
from benchmark.results.rows import Entry, Row, rows
from benchmark.results.split import JUDGED, NETWORK

METRICS = (
    *("accuracy/clean", "accuracy/noisy", "accuracy/middle", "accuracy/generated", "fd"),
    *("is", "precision", "recall", "nll"),
)
"""Metrics of a document's table, and headings of those whose names do not say what they are."""
HEADINGS = {
    "accuracy/clean": "accuracy",
    "accuracy/noisy": "over noise",
    "accuracy/middle": "middle noise",
    "accuracy/generated": "as asked",
    "is": "IS",
}
SHORT = 12
"""Characters of a heading that is never wrapped on a terminal: longer ones would leave no room for the cells' names."""
NARROW = {
    **HEADINGS,
    "accuracy/clean": "clean",
    "accuracy/noisy": "noisy",
    "accuracy/middle": "middle",
    "precision": "prec.",
}
"""Headings of a narrow page."""
LONG = 18
"""Characters of the longest name that a narrow page shows on one line."""
KINDS = {"estimate": "ᵉ", "bound": "ᵇ", "unnormalised": "ᵘ"}
"""Marks of likelihoods that are not exact."""


@dataclass(frozen=True)
class Line:
    """Numbers of one cell, those of samples at its largest guidance scale.

    ``entries`` holds one entry a metric: a failed one, or the first measured one where protocols differ, by the feature
    network that judges classes where there are several.
    """

    cell: str
    guidance_scale: float | None
    entries: dict[str, Entry]


def lines(results: Results, cells: Sequence[str] | None = None) -> list[Line]:
    """One line for each cell, in the order of `rows`."""
    by_cell: dict[str, list[Row]] = {}
    for row in rows(results, cells):
        by_cell.setdefault(row.cell, []).append(row)
    judges = {record.protocol.get(NETWORK) for record in results.records if record.metric == JUDGED}
    return [_line(cell, of_cell, judges) for cell, of_cell in by_cell.items()]


def _line(cell: str, of_cell: list[Row], judges: Collection[str | None]) -> Line:
    entries: dict[str, Entry] = {}

    def rank(entry: Entry) -> tuple[int, bool]:
        aside = bool(judges) and entry.protocol.get(NETWORK) not in {None, *judges}
        return (FAILED, OK, NOT_APPLICABLE).index(entry.status), aside

    for row in of_cell:  # scales rise, so that the largest is last
        for metric, found in row.entries.items():
            entries[metric] = min(found, key=rank)
    return Line(cell, of_cell[-1].guidance_scale, entries)


def to_headline(
    results: Results,
    cells: Sequence[str] | None = None,
    floors: Collection[str] = frozenset(),
    answers: Answers | None = None,
) -> str:
    """Markdown table of ``METRICS`` for a narrow page: means over seeds, a row for each cell, floors first.

    Bold are ``bold_cells``. A number of another sample count than its column's states it. The last row has the largest
    standard error of each column, if there are several seeds.

    Args:
        results: Numbers to tabulate.
        cells: Cells to show and their order; all if None.
        floors: Cells for comparison that are no methods.
        answers: Scores of single test images, where they are kept.
    """
    found = chosen_lines(results, cells, floors)
    best = {metric: bold_cells(found, metric, floors, answers) for metric in METRICS}
    usual = {metric: _usual(line.entries.get(metric) for line in found) for metric in METRICS}
    body = []
    for line in found:
        name = escape(line.cell)
        if len(name) > LONG:
            name = "_&#8203;".join(name.rsplit("_", 1))  # a place to break the line
        numbers = [_counted(line.entries.get(metric), usual[metric]) for metric in METRICS]
        marked = [f"**{n}**" if line.cell in best[metric] else n for metric, n in zip(METRICS, numbers, strict=True)]
        body.append([f"*{name}* (floor)" if line.cell in floors else name, escape(labels_of(line)), *marked])
    measured = {metric: [line.entries[metric] for line in found if metric in line.entries] for metric in METRICS}
    errors = {metric: [e.stderr for e in of if e.stderr is not None] for metric, of in measured.items()}
    if any(errors.values()):
        body.append(["largest standard error", "", *(_short(max(errors[m])) if errors[m] else "" for m in METRICS)])
    return table(["method", "labels", *(_narrow(metric) for metric in METRICS)], body)


def chosen_lines(results: Results, cells: Sequence[str] | None, floors: Collection[str]) -> list[Line]:
    """Lines of the cells that have records, floors first; all cells if None."""
    known = {record.cell for record in results.records}
    found = [line for line in lines(results, cells) if line.cell in known and (cells is None or line.cell in cells)]
    return sorted(found, key=lambda line: line.cell not in floors)


def bold_cells(found: Sequence[Line], metric: str, floors: Collection[str], answers: Answers | None = None) -> set[str]:
    """Cells that are among the ``leaders`` of a metric, of those of one task and of as many labels.

    Floors, and densities without known mass, do not compete.
    """
    rivals: dict[Any, list[Side]] = {}
    for line in found:
        if line.cell not in floors and _competes(line.entries.get(metric)):
            entry = line.entries[metric]
            side = Side(line.cell, dict(zip(entry.seeds, entry.values, strict=True)))
            rivals.setdefault((entry.protocol.get("task"), entry.protocol.get("n_labeled")), []).append(side)
    return {
        side.cell
        for sides in rivals.values()
        for side, ahead in zip(sides, leaders(sides, metric, answers), strict=True)
        if ahead
    }


def _competes(entry: Entry | None) -> bool:
    return entry is not None and entry.status == OK and entry.protocol.get("kind") != UNNORMALISED


def _narrow(metric: str) -> str:
    return f"{NARROW.get(metric, metric)} {definition_of(metric).arrow}"


def heading(metric: str) -> str:
    return f"{HEADINGS.get(metric, metric)} {definition_of(metric).arrow}"


def labels_of(line: Line) -> str:
    """Number of training images whose class was told; empty if no record names it."""
    told = [entry.protocol.get("n_labeled") for entry in line.entries.values()]
    found = {count for count in told if isinstance(count, int)}
    return str(max(found)) if found else ""


def number(entry: Entry | None) -> str:
    """An entry with its standard error, see ``with_error``, and the mark of its kind."""
    return _told(entry, lambda entry: with_error(entry.mean, entry.stderr))


def _usual(entries: Iterable[Entry | None]) -> tuple[int, ...]:
    """The most frequent sample counts of a column."""
    counts = [entry.n for entry in entries if entry is not None and entry.status == OK]
    return mode(counts) if counts else ()


def _counted(entry: Entry | None, usual: tuple[int, ...]) -> str:
    """An entry without its standard error, and its sample count where that is not the usual one."""
    other = entry is not None and entry.status == OK and entry.n not in ((), usual)
    return f"{_brief(entry)} (n={'/'.join(map(str, entry.n))})" if other else _brief(entry)


def _brief(entry: Entry | None) -> str:
    """An entry without its standard error."""
    return _told(entry, lambda entry: _short(entry.mean))


def _told(entry: Entry | None, text: Callable[[Entry], str]) -> str:
    if entry is None or entry.status == NOT_APPLICABLE:
        return "–"
    if entry.status != OK:
        return entry.status
    return text(entry) + KINDS.get(entry.protocol.get("kind", ""), "")


def _short(value: float) -> str:
    """Three digits after the point, or two from 1 on; no zero before the point."""
    text = f"{value:z.3f}"
    return f"{value:z.2f}" if abs(float(text)) >= 1 else text.replace("0.", ".", 1)


def with_error(mean: float, stderr: float | None) -> str:
    """A mean with three decimals and its standard error in units of the last digit; one without error alone."""
    if stderr is None:
        return f"{mean:.3f}"
    digits = 3 if stderr < 0.1 else max(0, 1 - floor(log10(stderr)))
    return f"{mean:.{digits}f}({round(stderr * 10**digits)})"


@dataclass(frozen=True)
class Difference:
    """Mean difference of two cells over common seeds, with its 95 % interval, in the metric's unit.

    ``scale`` is the guidance scale of both; None of what has none.
    """

    metric: str
    scale: float | None
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


def differences(
    results: Results, first: str, second: str, metric: str, answers: Answers | None = None
) -> list[Difference]:
    """``first`` minus ``second`` at each common guidance scale; of two seeds that both have the metric, or none.

    The interval is Student's over differences of equal seeds, two at least, because one training of each tells nothing
    of others; and over test images, where ``answers`` has their scores.
    """
    ours, theirs = (_by_scale(results, cell, metric) for cell in (first, second))
    if definition_of(metric).table != GENERATION:
        ours, theirs = ({None: dict(*found.values())} if len(found) == 1 else {} for found in (ours, theirs))
    common_scales = sorted(ours.keys() & theirs.keys(), key=lambda scale: (scale is not None, scale))
    found = (_between(ours[scale], theirs[scale], metric, scale, answers) for scale in common_scales if scale != 0)
    return [change for change in found if change is not None]


def _between(
    new: dict[int, Record], old: dict[int, Record], metric: str, scale: float | None, answers: Answers | None
) -> Difference | None:
    """``new`` minus ``old``, records by seed; None without two common seeds."""
    sides = common(*(_side(records) for records in (new, old)), metric, answers)
    if sides is None:
        return None
    definition = replace(definition_of(metric), ratio=False)
    plain = replace(definition, target=None, higher_is_better=True)  # whose gains are differences
    found = paired_gain(plain, *sides, level=WIDE)
    return Difference(
        metric, scale, found.mean, found.low, found.high, float(gains(definition, sides.new, sides.old).mean())
    )


def _side(records: dict[int, Record]) -> Side:
    """The values of one cell's records by seed."""
    return Side(next(iter(records.values())).cell, {seed: record.value for seed, record in records.items()})


def _by_scale(results: Results, cell: str, metric: str) -> dict[Any, dict[int, Record]]:
    """Measured records of a cell by guidance scale and seed."""
    found: dict[Any, dict[int, Record]] = {}
    for record in results.sorted_records:
        if (record.cell, record.metric, record.status) == (cell, metric, OK):
            found.setdefault(record.protocol.get("guidance_scale"), {}).setdefault(record.seed, record)
    return found


def to_screen(
    results: Results,
    cells: Sequence[str],
    floors: Collection[str] = frozenset(),
    metrics: Sequence[str] = HEADLINE_METRICS,
) -> Any:
    """Table for a terminal, by rich: a column for the cell and each metric, a line for each cell that has one."""
    from rich.table import Column, Table
    from rich.text import Text

    headings = []
    for name in map(_narrow, metrics):
        short = len(name) <= SHORT
        text = Text(name if short else name.replace("/", "/ "))
        headings.append(Column(text, justify="right", overflow="fold", no_wrap=short))
    other = [f"{NARROW[metric]}: {metric}" for metric in metrics if NARROW.get(metric, metric) != metric]
    screen = Table(
        Column("cell", overflow="fold"), *headings,
        box=None, pad_edge=False, caption=Text("; ".join(other)), caption_justify="left",
    )  # fmt: skip
    for line in chosen_lines(results, cells, floors):
        if line.entries.keys().isdisjoint(metrics):
            continue
        scale = "" if line.guidance_scale is None else f" @{line.guidance_scale:g}"
        name = Text(f"{shown(line.cell, 64)}{scale}{' (floor)' if line.cell in floors else ''}")
        screen.add_row(name, *(Text(_brief(line.entries.get(metric))) for metric in metrics))
    return screen
