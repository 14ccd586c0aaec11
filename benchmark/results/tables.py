"""Tables of results: long CSV, and Markdown with the best of comparable rows bold.

Only Markdown rounds.
"""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mode
from typing import Any

from benchmark.errors import shown
from benchmark.results.answers_file import Answers
from benchmark.results.definitions import GENERATION, MetricDefinition, definition_of
from benchmark.results.leading import Side, leaders
from benchmark.results.markdown import escape, table
from benchmark.results.record import NOT_APPLICABLE, OK, UNNORMALISED, Record, Results
from benchmark.results.results_file import write_results
from benchmark.results.rows import Entry, Row, rows
from benchmark.results.split import all_tables
from benchmark.system.files import write_text

__all__ = ["Entry", "Row", "rows", "to_csv", "to_markdown", "write_tables"]
# Choices of a row: rows that differ only in these are ranked together.
CHOICES = frozenset({"guidance_scale", "sampler", "steps", "nfe"})
# Protocol entries with a column of their own, and its heading.
LABELS = {
    **{"n_labeled": "labels", "task": "task", "process": "noise levels"},
    **{"sampler": "sampler", "steps": "steps", "nfe": "NFE"},
}
# First characters of a spreadsheet's formulas, half and full width.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
ALWAYS_SHOWN = frozenset({"kind", "nfe"})


def write_tables(
    folder: Path,
    results: Results,
    cells: Sequence[str] | None = None,
    floors: Collection[str] = frozenset(),
    answers: Answers | None = None,
) -> list[str]:
    """Write ``results.json``, ``results.csv`` and ``results.md``, each whole or not at all; returns these names."""
    folder = Path(folder)
    write_results(folder / "results.json", results)
    write_text(folder / "results.csv", to_csv(results))
    write_text(folder / "results.md", to_markdown(results, cells=cells, floors=floors, answers=answers))
    return ["results.json", "results.csv", "results.md"]


def to_csv(results: Results) -> str:
    """Long form, one record a row, numbers unrounded, texts guarded against being run as spreadsheet formulas."""
    columns = [field.name for field in fields(Record)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["suite", "commit", *columns])
    for record in results.sorted_records:
        values = {name: getattr(record, name) for name in columns} | {"protocol": record.protocol_text}
        writer.writerow([csv_value(value) for value in (results.suite, results.commit, *values.values())])
    return out.getvalue()


def csv_value(value: Any) -> Any:
    """A value for a CSV file: texts on one line and guarded, booleans in lower case."""
    if isinstance(value, str):
        text = shown(value, 10_000)  # one record, one line
        return f"'{text}" if text[:1] in _FORMULA else text
    return str(value).lower() if isinstance(value, bool) else value


def to_markdown(
    results: Results,
    columns: Collection[str] | None = None,
    *,
    cells: Sequence[str] | None = None,
    floors: Collection[str] = frozenset(),
    unfinished: Sequence[str] = (),
    answers: Answers | None = None,
) -> str:
    """Tables of classification, density, generation and cost, each with its protocol beneath.

    Args:
        results: Numbers to tabulate.
        columns: Metrics to show; if None, all but plotted curves and inapplicable ones.
        cells: Order of rows, as in `rows`.
        floors: Trivial cells for comparison: above the others, marked, and never bold.
        unfinished: Unfinished cells, for the first line.
        answers: Scores of single test images, where they are kept; intervals then hold the error over these too.

    Raises:
        ValueError: If ``columns`` names an unknown metric.
    """
    all_rows = sorted(rows(results, cells), key=lambda row: row.cell not in floors)
    entries = [entry for row in all_rows for of_metric in row.entries.values() for entry in of_metric]
    measured = {entry.metric for entry in entries if entry.status != NOT_APPLICABLE}
    if columns is None:
        shown = {metric for metric in measured if not definition_of(metric).is_plotted}
    else:
        shown = {metric for metric in columns if definition_of(metric)}
    from benchmark.results.published import printed_beside  # reads YAML, which comparisons do without

    notes: dict[str, int] = {}
    published = printed_beside(results.suite)
    parts = [f"**Incomplete**: not finished are {', '.join(map(escape, unfinished))}."] if unfinished else []
    parts.append(
        f"Suite {escape(results.suite)}, commit {escape(results.commit) or 'unknown'}. Mean ± standard error over"
        " seeds; **bold**: best of the rows measured alike, and what a 95 % interval does not tell from it;"
        " floors aside."
    )
    for heading, some, own in all_tables(all_rows, shown):
        parts.append(
            _Table(heading, own, rows_of(some, own, floors), frozenset(floors), notes, published, answers).text()
        )
    if notes:
        parts.append("\n".join(f"- [{number}] {reason}" for reason, number in notes.items()))
    return "\n\n".join(parts) + "\n"


def rows_of(all_rows: Sequence[Row], metrics: Sequence[str], floors: Collection[str]) -> list[Row]:
    """Rows with at least one of ``metrics``; a cell without any keeps its first row, shown as missing.

    A floor has not all metrics: it is shown if it has one of these, or none at all.
    """
    chosen = []
    for cell in dict.fromkeys(row.cell for row in all_rows):
        of_cell = [row for row in all_rows if row.cell == cell]
        with_metric = [row for row in of_cell if not row.entries.keys().isdisjoint(metrics)]
        asked = cell not in floors or not any(row.entries for row in of_cell)
        chosen += with_metric or (of_cell[:1] if asked else [])
    return chosen


def reasons_of(row: Row, metrics: Sequence[str]) -> list[str]:
    """Reasons of a row whose ``metrics`` are all n/a; empty if one was measured, failed or is missing."""
    found = [entry for metric in metrics for entry in row.entries.get(metric, ())]
    if any(metric not in row.entries for metric in metrics) or any(e.status != NOT_APPLICABLE for e in found):
        return []
    return _distinct(reason for entry in found for reason in entry.reasons)


def by_reason(left_out: dict[str, list[str]]) -> dict[str, list[str]]:
    """Cells by the reasons for which they are left out; those without reasons do not occur."""
    cells: dict[str, list[str]] = {}
    for cell, reasons in left_out.items():
        if reasons:
            cells.setdefault("; ".join(reasons), []).append(cell)
    return cells


@dataclass
class _Table:
    """One Markdown table; ``notes`` (reason -> number) is shared by all tables of a document.

    ``published`` has numbers as printed, see ``Row.paper``.
    """

    name: str
    metrics: list[str]
    rows: list[Row]
    floors: frozenset[str]
    notes: dict[str, int]
    published: Mapping[tuple[str, str], str]
    answers: Answers | None
    labels: list[str] = field(init=False)
    left_out: dict[str, list[str]] = field(init=False)
    asked: set[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        reasons = {row.cell: reasons_of(row, self.metrics) for row in self.rows}
        self.left_out = {cell: why for cell, why in reasons.items() if why}
        self.rows = [row for row in self.rows if not reasons_of(row, self.metrics)]
        self.asked = {(row.cell, metric) for row in self.rows for metric in row.entries}
        # Only generation has one sampler, its steps and NFE for a whole row; elsewhere they stand in the cells.
        wanted = LABELS if self.name.startswith(GENERATION) else ("n_labeled", "task", "process")
        self.labels = [key for key in wanted if any(self._of_row(row, key) for row in self.rows)]
        if len({tuple(self._of_row(row, "n_labeled")) for row in self.rows if self._entries(row)}) == 1:
            self.labels = [key for key in self.labels if key != "n_labeled"]  # stated once, beneath
        self.seeds = max((entry.total for row in self.rows for entry in self._entries(row)), default=0)

    def _entries(self, row: Row) -> list[Entry]:
        return [entry for metric in self.metrics for entry in row.entries.get(metric, ())]

    def _of_row(self, row: Row, key: str) -> list[str]:
        """The values that ``key`` takes in this row's protocols."""
        return _distinct(entry.protocol[key] for entry in self._entries(row) if key in entry.protocol)

    def text(self) -> str:
        """Heading, table and the lines beneath."""
        scaled = any(row.guidance_scale is not None for row in self.rows)
        header = ["cell", *(["scale"] if scaled else []), *(LABELS[key] for key in self.labels)]
        left = len(header)
        lines = []
        for row in self.rows:
            floor = row.cell in self.floors
            labels = [f"{escape(row.cell)} (floor)" if floor else escape(row.cell)]
            if scaled:
                labels.append("" if row.guidance_scale is None else f"{row.guidance_scale:g}")
            lines.append(labels + [escape(", ".join(self._of_row(row, key))) for key in self.labels])
        beneath: dict[str, list[str]] = {}
        columns = [_Column(m, [row.entries.get(m, ()) for row in self.rows], self.labels) for m in self.metrics]
        counts = {column.count for column in columns} - {None}
        for column in columns:
            header.append(column.heading(with_count=len(counts) > 1))
            best = column.best([row.cell for row in self.rows], self.floors, self.answers)
            for line, row, entries in zip(lines, self.rows, column.entries, strict=True):
                aside = {key for key in self.labels if len(self._of_row(row, key)) == 1}
                # A number of the whole cell is in one of its rows; the others leave it blank.
                elsewhere = not entries and (row.cell, column.metric) in self.asked
                paper = escape(row.paper(self.published, column.metric))
                text = "" if elsewhere else self._cell(column, entries, best, aside)
                line.append(f"{text} {paper}" if paper else text)
            for fact in column.facts():
                beneath.setdefault(fact, []).append(column.metric)
        title = f"### {self.name} ({_seeds(self.seeds)}{f', n={counts.pop()}' if len(counts) == 1 else ''})"
        facts = [f"- {fact}: {', '.join(metrics)}" for fact, metrics in beneath.items()]
        if any(row.paper(self.published, metric) for row in self.rows for metric in self.metrics):
            facts.append("- paper: as printed there; results/published.yaml has source, setting and what differs")
        facts += [
            f"- n/a throughout, {escape(reason)}: {', '.join(map(escape, cells))}"
            for reason, cells in by_reason(self.left_out).items()
        ]
        return "\n\n".join([title, table(header, lines, left), *(["\n".join(facts)] if facts else [])])

    def _cell(self, column: "_Column", entries: Sequence[Entry], best: set[int], aside: set[str]) -> str:
        return "; ".join(self._entry(column, entry, id(entry) in best, aside) for entry in entries) or "missing"

    def _entry(self, column: "_Column", entry: Entry, bold: bool, aside: set[str]) -> str:
        if entry.status == OK:
            text = f"**{column.number(entry)}**" if bold else column.number(entry)
        else:
            marks = [str(self.notes.setdefault(escape(reason), len(self.notes) + 1)) for reason in entry.reasons]
            text = f"{entry.status} [{', '.join(marks)}]"
        extras = [
            _fact(key, entry.protocol[key]) for key in column.inline if key in entry.protocol and key not in aside
        ]
        if column.count is not None and entry.n not in ((), (column.count,)):
            extras.append(f"n={'/'.join(map(str, entry.n))}")
        if len(entry.seeds) < entry.total:
            extras.append(f"{len(entry.seeds)} of {entry.total} seeds")
        elif entry.total != self.seeds:
            extras.append(_seeds(entry.total))
        return f"{text} ({', '.join(extras)})" if extras else text


class _Column:
    """One metric over all rows: the common part for its heading, and the rest for each row."""

    def __init__(self, metric: str, entries: Sequence[tuple[Entry, ...]], labels: Sequence[str]) -> None:
        self.metric, self.entries = metric, entries
        self.definition: MetricDefinition = definition_of(metric)
        self.measured = [entry for of_row in entries for entry in of_row if entry.status == OK]
        counts = [n for entry in self.measured for n in entry.n] if self.definition.gating else []
        self.count = mode(counts) if counts else None
        protocols = [entry.protocol for entry in self.measured]
        keys = sorted({key for protocol in protocols for key in protocol} - {"guidance_scale"})
        same = {
            key for key in keys if len({json.dumps(protocol.get(key, ...), default=str) for protocol in protocols}) == 1
        }
        self.inline = [key for key in keys if key in ALWAYS_SHOWN or key not in same]
        self.fixed = {key: protocols[0][key] for key in keys if key in same - ALWAYS_SHOWN and key not in labels}

    def heading(self, with_count: bool) -> str:
        """Name, direction, unit and the usual sample count; rows state other counts."""
        unit = "" if self.definition.unit in ("", "fraction") else f", {self.definition.unit}"
        count = f", n={self.count}" if with_count and self.count is not None else ""
        return f"{self.metric} {self.definition.arrow}{unit}{count}"

    def facts(self) -> list[str]:
        """Protocol entries of every row, for the lines beneath the table."""
        return [_fact(key, value) for key, value in self.fixed.items()]

    def number(self, entry: Entry) -> str:
        """Rounded mean, with its standard error over seeds if known."""
        assert entry.mean is not None
        mean = format(entry.mean, self.definition.shown)
        return mean if entry.stderr is None else f"{mean} ± {format(entry.stderr, self.definition.shown)}"

    def best(self, cells: Sequence[str], floors: Collection[str], answers: Answers | None) -> set[int]:
        """``id`` of the entries to print bold: the ``leaders`` among at least two with the same protocol."""
        if not self.definition.ranked:
            return set()
        groups: dict[Any, list[tuple[Entry, Side]]] = {}
        for of_row, cell in zip(self.entries, cells, strict=True):
            for entry in of_row:
                if entry.status == OK and cell not in floors and entry.protocol.get("kind") != UNNORMALISED:
                    alike = {key: value for key, value in entry.protocol.items() if key not in CHOICES}
                    side = Side(cell, dict(zip(entry.seeds, entry.values, strict=True)))
                    groups.setdefault((entry.n, json.dumps(alike, sort_keys=True)), []).append((entry, side))
        bold: set[int] = set()
        for group in groups.values():
            ahead = leaders([side for _, side in group], self.metric, answers)
            bold |= {id(entry) for (entry, _), first in zip(group, ahead, strict=True) if first}
        return bold


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(_value, values)))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fact(key: str, value: Any) -> str:
    """A protocol entry in words: ``bound`` for a kind, ``NFE 35``, ``feature_network digits-net``."""
    return escape(_value(value) if key == "kind" else f"{LABELS.get(key, key)} {_value(value)}")
