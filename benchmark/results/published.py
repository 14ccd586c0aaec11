"""Published numbers: the papers' tables as they print them, with setting and differences to ours."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened, shown
from benchmark.results.definitions import definition_of
from benchmark.results.fields import check_keys, text_of
from benchmark.system.values import is_number, is_text
from benchmark.system.yaml_files import mapping, read_yaml

TABLE = {"source": True, "setting": True, "differs": True, "columns": True, "rows": True, "cells": False}
COLUMN = {"heading": True, "metric": False, "percent": False, "suite": False, "put": False}
PUBLISHED = Path(__file__).parents[2] / "results" / "published.yaml"
PRINTED = re.compile(r"(\d+(?:\.\d+)?)(?:±\d+(?:\.\d+)?)?")


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    Attributes:
        table: Name of its table in ``results/published.yaml``.
        row: Method, as the paper names it.
        column: Heading.
        source: Paper and table.
        setting: How the paper measured it.
        differs: What is different here.
        printed: The number as printed, with its spread and unit.
        value: The number in the unit of ``metric``.
        metric: Our metric; None if none is alike.
        suite: Suite of ours on the same data, if there is one.
        cell: Cell of that suite with the same method, ``name`` or ``name@scale``, if there is one.
    """

    table: str
    row: str
    column: str
    source: str
    setting: str
    differs: str
    printed: str
    value: float
    metric: str | None
    suite: str | None
    cell: str | None


class PublishedNumbers:
    """All published numbers in a file.

    Raises:
        InputError: If the file cannot be used; names the table and what is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: list[Published] = []
        for name, raw in read_yaml(path).items():
            where = f"{path}: {shown(name, 60)}"
            self.numbers += _numbers(str(name), check_keys(mapping(raw, where), TABLE, where), where)
        self._by_place = {(number.table, number.row, number.column): number for number in self.numbers}

    def at(self, table: str, row: str, column: str) -> Published:
        """The number at a place.

        Raises:
            InputError: If there is none.
        """
        found = self._by_place.get((table, row, column))
        if found is None:
            place = shown(f"{table}, {row}, {column}", 120)
            raise InputError(f"{self.path}: no number at {place}; name a table, a row and a heading that it has")
        return found

    def beside(self, suite: str) -> dict[tuple[str, str], list[Published]]:
        """Numbers on the data of a suite, by our cell and metric."""
        found: dict[tuple[str, str], list[Published]] = {}
        for number in self.numbers:
            if number.suite == suite and number.cell and number.metric:
                found.setdefault((number.cell, number.metric), []).append(number)
        return found


@cache
def printed_beside(suite: str) -> dict[tuple[str, str], str]:
    """Numbers that ship, as printed, of a suite's data and setting, by row, ``cell`` or ``cell@scale``, and metric."""
    beside = PublishedNumbers(PUBLISHED).beside(suite) if PUBLISHED.is_file() else {}
    return {place: " / ".join(dict.fromkeys(number.printed for number in of)) for place, of in beside.items()}


def _numbers(table: str, raw: dict[str, Any], where: str) -> list[Published]:
    about = {name: text_of(raw, name, where) for name in ("source", "setting", "differs")}
    if not isinstance(raw["columns"], list) or not raw["columns"]:
        raise InputError(f"{where}: columns: expected a list, got {shortened(raw['columns'])}")
    columns = [_column(item, f"{where}: columns[{i}]") for i, item in enumerate(raw["columns"])]
    cells = _by_text(raw["cells"], f"{where}: cells") if "cells" in raw else {}
    rows = _by_text(raw["rows"], f"{where}: rows")
    if not cells.keys() <= rows.keys():
        raise InputError(f"{where}: cells: no row {shortened(next(iter(cells.keys() - rows.keys())))}")
    found = []
    for row, values in rows.items():
        if not isinstance(values, list) or len(values) != len(columns):
            raise InputError(f"{where}: {shown(row, 60)}: expected {len(columns)} values, got {shortened(values)}")
        of_row = cells.get(row)
        names = of_row if isinstance(of_row, list) else [of_row] * len(columns)
        if len(names) != len(columns):
            raise InputError(f"{where}: cells: {shown(row, 60)}: expected {len(columns)} names, got {len(names)}")
        for column, name, value in zip(columns, names, values, strict=True):
            if value is not None:
                suite, printed = column.get("suite"), f"{value}{' %' if column.get('percent') else ''}"
                number = _number(value, f"{where}: {shown(row, 60)}") * (0.01 if column.get("percent") else 1.0)
                cell = _cell(name, column, where) if suite else None
                metric = column.get("metric")
                found.append(
                    Published(table, row, column["heading"], **about, printed=printed, value=number,
                              metric=metric, suite=suite, cell=cell)
                )  # fmt: skip
    return found


def _by_text(raw: Any, where: str) -> dict[str, Any]:
    return {str(name): value for name, value in mapping(raw, where).items()}


def _column(raw: Any, where: str) -> dict[str, Any]:
    column = check_keys(mapping(raw, where), COLUMN, where)
    for name in ("heading", "metric", "suite"):
        if column.get(name) is not None:
            text_of(column, name, where)
    if not isinstance(column.get("percent", False), bool):
        raise InputError(f"{where}: percent: expected true or false, got {shortened(column['percent'])}")
    if column.get("metric") is not None:
        try:
            definition_of(column["metric"])
        except ValueError as error:
            raise InputError(f"{where}: {shown(error, 200)}") from None
    return column


def _number(value: Any, where: str) -> float:
    """A number, or that of a text such as ``2.10`` or ``99.1±0.2``."""
    if is_number(value):
        return float(value)
    match = PRINTED.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InputError(f"{where}: expected a number, a text such as 99.1±0.2 or null, got {shortened(value)}")
    return float(match[1])


def _cell(pattern: Any, column: dict[str, Any], where: str) -> str | None:
    """Name of a cell of ours; ``{}`` in it stands for the column's ``put``."""
    if pattern is None:
        return None
    if not is_text(pattern):
        raise InputError(f"{where}: cells: expected names, got {shortened(pattern)}")
    return pattern.replace("{}", str(column.get("put", "")))
