"""Rows of a table: each cell at each guidance scale, its metrics as means over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from benchmark.results.definitions import column_order
from benchmark.results.record import FAILED, NOT_APPLICABLE, OK, Record, Results


@dataclass(frozen=True)
class Entry:
    """One metric of one row under one protocol.

    ``mean`` and ``stderr`` (over seeds; None with one seed) are in the metric's unit, None unless ``status`` is ``ok``.
    One failed seed makes the entry ``failed``: the mean of the others would hide it. ``n`` lists the sample counts
    that occur, ``seeds`` those with the entry's status, ``values`` their numbers if it is ``ok``, ``total`` counts all
    its seeds.
    """

    metric: str
    status: str
    mean: float | None
    stderr: float | None
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    total: int
    n: tuple[int, ...]
    protocol: dict[str, Any]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One cell at one guidance scale; a metric without entries is missing.

    A metric has more than one entry where it was measured under more than one protocol.
    """

    cell: str
    method: str
    guidance_scale: float | None
    entries: dict[str, tuple[Entry, ...]]

    def paper(self, published: Mapping[tuple[str, str], str], metric: str) -> str:
        """The published number beside this row's, as ``(paper 54.79 %)``; empty if there is none.

        Args:
            published: Numbers as printed by row, ``cell`` or ``cell@scale``, and metric.
            metric: Name of the metric.
        """
        scaled = [] if self.guidance_scale is None else [f"{self.cell}@{self.guidance_scale:g}"]
        found = [published[name, metric] for name in (*scaled, self.cell) if (name, metric) in published]
        return f"(paper {found[0]})" if found and self.entries.get(metric) else ""


def rows(results: Results, cells: Sequence[str] | None = None) -> list[Row]:
    """One row for each cell and guidance scale, metrics in the order of their definitions.

    Args:
        results: Numbers to tabulate.
        cells: Cells in the order wanted; one without records gives a row without entries. Cells not listed follow
            in the order of their first record.
    """
    order = list(dict.fromkeys([*(cells or ()), *(record.cell for record in results.records)]))
    by_cell: dict[str, dict[float | None, list[Record]]] = {cell: {} for cell in order}
    for record in results.records:
        by_cell[record.cell].setdefault(record.protocol.get("guidance_scale"), []).append(record)
    table = []
    for cell, by_scale in by_cell.items():
        for scale in sorted(by_scale, key=lambda scale: (scale is not None, scale)):
            records = by_scale[scale]
            table.append(Row(cell, records[0].method, scale, _entries(records)))
        if not by_scale:
            table.append(Row(cell, "", None, {}))
    return table


def _entries(records: Sequence[Record]) -> dict[str, tuple[Entry, ...]]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.metric, record.protocol_text), []).append(record)
    entries: dict[str, tuple[Entry, ...]] = {}
    for metric, _ in sorted(groups, key=lambda group: (column_order(group[0]), group[1])):
        entries.setdefault(metric, ())
    for (metric, _), group in sorted(groups.items()):
        entries[metric] += (_entry(sorted(group, key=lambda record: record.seed)),)
    return entries


def _entry(group: Sequence[Record]) -> Entry:
    found = {record.status for record in group}
    status = next(status for status in (FAILED, NOT_APPLICABLE, OK) if status in found)
    group_of_status = [record for record in group if record.status == status]
    values = [record.value for record in group_of_status] if status == OK else []
    mean, stderr = mean_and_stderr(values) if values else (None, None)
    return Entry(
        metric=group[0].metric,
        status=status,
        mean=mean,
        stderr=stderr,
        seeds=tuple(record.seed for record in group_of_status),
        values=tuple(values),
        total=len(group),
        n=tuple(sorted({record.n for record in group_of_status if record.n is not None})),
        protocol=group[0].protocol,
        reasons=tuple(dict.fromkeys(record.reason for record in group_of_status if record.reason)),
    )


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error ``sd / sqrt(k)``, ``sd`` with ``k - 1``; None with one value."""
    return fmean(values), stdev(values) / sqrt(len(values)) if len(values) > 1 else None
