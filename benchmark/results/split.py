"""Tables of results: those of every cell, those of questions that some cells are asked, and one for each condition."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from benchmark.results.definitions import TABLES, column_order, definition_of, is_asked
from benchmark.results.record import OK
from benchmark.results.rows import Entry, Row

NETWORK = "feature_network"
JUDGED = "accuracy/generated"
"""Metric whose feature network also judges classes."""


def all_tables(all_rows: Sequence[Row], metrics: Collection[str]) -> Iterator[tuple[str, list[Row], list[str]]]:
    """Heading, rows and columns of each table of some metrics: ``TABLES``, each followed by its asked questions."""
    for name in TABLES:
        own = sorted((metric for metric in metrics if definition_of(metric).table == name), key=column_order)
        usual = [metric for metric in own if not is_asked(metric)]
        if usual:
            yield from by_conditions(name, all_rows, usual)
        asked = [metric for metric in own if is_asked(metric)]
        for stage in dict.fromkeys(definition_of(metric).stage for metric in asked):
            columns = [metric for metric in asked if definition_of(metric).stage == stage]
            some = [row for row in all_rows if not row.entries.keys().isdisjoint(columns)]
            yield from by_conditions(stage.capitalize(), some, columns)


def by_conditions(name: str, all_rows: Sequence[Row], metrics: Sequence[str]) -> list[tuple[str, list[Row], list[str]]]:
    """Heading, rows and columns (metrics) of a table, or of one table for each of several conditions.

    A condition is a feature network, or a kind of points and their noise level. Numbers without a condition stand in
    the table of the network that judges classes, which comes first; beside points they have a table of their own.
    """
    entries = [entry for row in all_rows for metric in metrics for entry in row.entries.get(metric, ())]
    conditions = list(dict.fromkeys(filter(None, map(_condition, entries))))
    if len(conditions) < 2:
        return [(name, list(all_rows), list(metrics))]
    judges = {_condition(entry) for entry in entries if entry.metric == JUDGED}
    conditions.sort(key=lambda condition: condition not in judges)
    networks = any(NETWORK in entry.protocol for entry in entries)
    first = conditions[0] if networks else ""
    tables = []
    for condition in conditions if networks else ("", *conditions):
        kept = [_under(condition, row, condition == first) for row in all_rows]
        found = {e.metric for row in kept for of_metric in row.entries.values() for e in of_metric if e.status == OK}
        columns = [metric for metric in metrics if metric in found]
        if columns:
            tables.append((f"{name}{condition}", kept, columns))
    return tables


def _condition(entry: Entry) -> str:
    """Condition of a number, worded as the end of a heading; empty if it has none."""
    if NETWORK in entry.protocol:
        return f" by {entry.protocol[NETWORK]}"
    if "points" in entry.protocol:
        return f", {entry.protocol['points']}, sigma {entry.protocol['sigma']:g}"
    return ""


def _under(condition: str, row: Row, first: bool) -> Row:
    """A row with the numbers of a condition, with failures, and in the first table with numbers without condition."""

    def belongs(entry: Entry) -> bool:
        own = _condition(entry)
        return own == condition if own else first or entry.status != OK

    kept = {metric: tuple(filter(belongs, entries)) for metric, entries in row.entries.items()}
    return replace(row, entries={metric: entries for metric, entries in kept.items() if entries})
