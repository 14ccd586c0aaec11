"""Results for other programs: wide CSV and LaTeX.

A column is a metric, or a metric by a feature network where several looked at samples. Where a row has a number under
several other protocols, such as two ways to a likelihood, the first stands here and all in the long form, `to_csv`.
"""

import csv
import io
from collections.abc import Collection, Sequence
from typing import Any

from benchmark.errors import shown
from benchmark.results.definitions import column_order, definition_of
from benchmark.results.record import OK, Results
from benchmark.results.rows import Entry, Row, rows
from benchmark.results.split import NETWORK
from benchmark.results.tables import csv_value

_LATEX = {
    ord(sign): replacement
    for sign, replacement in {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}",
    }.items()
}  # fmt: skip
_ARROWS = {"↑": r" $\uparrow$", "↓": r" $\downarrow$"}
Column = tuple[str, str | None]
"""A metric, and the feature network if there are several."""


def to_wide_csv(results: Results, metrics: Collection[str] = (), cells: Sequence[str] | None = None) -> str:
    """One line for each cell and guidance scale; of each metric the mean over seeds, its standard error, and seeds.

    Args:
        results: Numbers to export.
        metrics: Names of metrics; all that were measured if empty.
        cells: Order of the rows.

    Raises:
        ValueError: If a metric is unknown.
    """
    columns = _columns(results, metrics)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = [f"{_heading(column)}{suffix}" for column in columns for suffix in ("", " stderr", " seeds")]
    writer.writerow(["cell", "method", "guidance_scale", *header])
    for row in _with_numbers(results, cells, columns):
        values: list[object] = [row.cell, row.method, row.guidance_scale]
        for column in columns:
            entry = _measured(row, column)
            values += [entry.mean, entry.stderr, len(entry.seeds)] if entry else [None, None, 0]
        writer.writerow([csv_value(value) for value in values])
    return out.getvalue()


def to_latex(
    results: Results,
    metrics: Collection[str] = (),
    cells: Sequence[str] | None = None,
    floors: Collection[str] = frozenset(),
) -> str:
    """A ``tabular`` for the package booktabs: a row for each cell and guidance scale, means with standard errors.

    Args:
        results: Numbers to export.
        metrics: Names of metrics; all that were measured if empty.
        cells: Order of the rows.
        floors: Trivial cells; they stand below a rule of their own.

    Raises:
        ValueError: If a metric is unknown.
    """
    columns = _columns(results, metrics)
    table = _with_numbers(results, cells, columns)
    scaled = any(row.guidance_scale is not None for row in table)
    header = ["cell", *(["scale"] if scaled else [])]
    header += [_escaped(_heading(column)) + _ARROWS.get(definition_of(column[0]).arrow, "") for column in columns]
    parts: list[list[str]] = []
    for of_floors in (False, True):
        lines = [_line(row, columns, scaled) for row in table if (row.cell in floors) == of_floors]
        parts += [lines] if lines else []
    body = "\\midrule\n".join("".join(lines) for lines in parts)
    layout = "l" * (2 if scaled else 1) + "r" * len(columns)
    return (
        f"\\begin{{tabular}}{{{layout}}}\n\\toprule\n{' & '.join(header)} \\\\\n\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _with_numbers(results: Results, cells: Sequence[str] | None, columns: Sequence[Column]) -> list[Row]:
    return [row for row in rows(results, cells) if any(_measured(row, column) for column in columns)]


def _line(row: Row, columns: Sequence[Column], scaled: bool) -> str:
    scale = "" if row.guidance_scale is None else f"{row.guidance_scale:g}"
    numbers = [_number(entry) if (entry := _measured(row, column)) else "--" for column in columns]
    return f"{' & '.join([_escaped(row.cell), *([scale] if scaled else []), *numbers])} \\\\\n"


def _number(entry: Entry) -> str:
    form = definition_of(entry.metric).shown
    mean = format(entry.mean, form)
    return f"${mean}$" if entry.stderr is None else f"${mean} \\pm {format(entry.stderr, form)}$"


def _measured(row: Row, column: Column) -> Entry | None:
    metric, network = column
    found = [entry for entry in row.entries.get(metric, ()) if entry.status == OK]
    return next((entry for entry in found if network is None or entry.protocol.get(NETWORK) == network), None)


def _columns(results: Results, metrics: Collection[str]) -> list[Column]:
    networks: dict[str, dict[Any, None]] = {}
    for record in results.records:
        if record.status == OK:
            networks.setdefault(record.metric, {})[record.protocol.get(NETWORK)] = None
    names = list(dict.fromkeys(metrics)) or sorted(networks, key=column_order)
    for name in names:
        definition_of(name)
    several = {name: list(networks.get(name, ())) for name in names}
    return [(name, network) for name, of in several.items() for network in (of if len(of) > 1 else [None])]


def _heading(column: Column) -> str:
    metric, network = column
    return metric if network is None else f"{metric} by {network}"


def _escaped(text: str) -> str:
    return shown(text, 100).translate(_LATEX)
