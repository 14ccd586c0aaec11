"""Tables by class: accuracy of samples, and distances within each class."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark.results.definitions import definition_of
from benchmark.results.markdown import escape, table
from benchmark.results.record import FAILED, NOT_APPLICABLE
from benchmark.results.rows import Entry, Row
from benchmark.system.files import read_json

FILE = "per_class.json"
COLUMNS = (
    *("cell", "seed", "guidance_scale", "metric", "feature_network", "label", "class_name", "value", "stderr"),
    "n",
)
OVERALL = {"fd": "fd/intra", "fid": "fid/intra"}
"""Names of means over classes that differ from the name of a class's number."""
Numbers = list[dict[str, Any]]


def class_names(folder: Path) -> dict[int, str]:
    """Names of classes by label from the evaluation in ``folder``; empty if it recorded none."""
    try:
        return {int(row["label"]): str(row["class_name"]) for row in read_json(folder / FILE)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def to_csv(numbers: Numbers) -> str:
    """Long form, one number a row, unrounded."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(numbers)
    return text.getvalue()


def to_markdown(numbers: Numbers, all_rows: Sequence[Row] = ()) -> str:
    """A table for each metric, feature network and task: cells at their scales by classes, means over seeds.

    A cell with a failed seed shows the failure in place of its numbers, as in other tables.
    """
    parts = []
    told: set[tuple[str, str]] = set()
    for (metric, network), names, own in _by_task(numbers):
        first = (metric, network) not in told  # the first table also lists cells without numbers
        told.add((metric, network))
        parts.append(_table(metric, network, names, own, all_rows if first else ()))
    if parts:
        return "\n\n".join(parts) + "\n"
    errors = _states("accuracy/generated", "", all_rows)[0]
    return "No samples were asked for by class.\n" if not errors else "\n".join(_failures(errors)) + "\n"


def _by_task(numbers: Numbers) -> list[tuple[tuple[str, str], dict[int, str], Numbers]]:
    """Numbers grouped by metric, network and names of classes."""
    by_cell: dict[tuple[str, str, str], Numbers] = {}
    for row in numbers:
        by_cell.setdefault((row["metric"], row["feature_network"], row["cell"]), []).append(row)
    groups: list[tuple[tuple[str, str], dict[int, str], Numbers]] = []
    for (metric, network, _), own in by_cell.items():
        names = {row["label"]: row.get("class_name", str(row["label"])) for row in own}
        for key, known, others in groups:
            if key == (metric, network) and all(known.get(label, name) == name for label, name in names.items()):
                known.update(names)
                others += own
                break
        else:
            groups.append(((metric, network), names, own))
    return groups


def _table(metric: str, network: str, names: dict[int, str], own: Numbers, all_rows: Sequence[Row]) -> str:
    errors, absent, missing = _states(metric, network, all_rows)
    labels, shown = sorted(names), definition_of(metric).shown
    found = dict.fromkeys((row["cell"], row["guidance_scale"]) for row in own)
    lines = []
    for cell, scale in dict.fromkeys([*found, *errors, *((cell, None) for cell in missing)]):
        line = [escape(cell), "" if scale is None else f"{scale:g}"]
        for label in labels:
            wanted = (cell, scale, label)
            values = [row["value"] for row in own if (row["cell"], row["guidance_scale"], row["label"]) == wanted]
            failed = (cell, scale) in errors
            line.append("failed" if failed else format(fmean(values), shown) if values else "missing")
        lines.append(line)
    heading = f"### {metric} {definition_of(metric).arrow} of each class, feature network {escape(network)}"
    columns = [str(k) if names[k] == str(k) else f"{k} {escape(names[k], 40)}" for k in labels]
    notes = [*_failures(errors), *(f"- n/a: {escape(cell)}, {escape('; '.join(why))}" for cell, why in absent.items())]
    parts = [heading, table(["cell", "scale", *columns], lines, 2), *(["\n".join(notes)] if notes else [])]
    return "\n\n".join(parts)


def _failures(errors: dict[tuple[str, float | None], tuple[str, ...]]) -> list[str]:
    by_cell: dict[str, dict[str, None]] = {}
    for (cell, _), reasons in errors.items():
        by_cell.setdefault(cell, {}).update(dict.fromkeys(reasons))
    return [f"- failed: {escape(cell)}, {escape('; '.join(reasons))}" for cell, reasons in by_cell.items()]


def _states(metric: str, network: str, all_rows: Sequence[Row]) -> tuple[dict, dict[str, tuple[str, ...]], list[str]]:
    """Errors by cell and scale, reasons of inapplicable cells, and cells without the metric."""
    overall = OVERALL.get(metric, metric)
    errors, absent, missing = {}, {}, []
    for cell in dict.fromkeys(row.cell for row in all_rows):
        own = [(row, _entry(row, overall, network)) for row in all_rows if row.cell == cell]
        known = [(row, entry) for row, entry in own if entry is not None]
        missing += [] if known else [cell]
        errors |= {(cell, row.guidance_scale): entry.reasons for row, entry in known if entry.status == FAILED}
        reasons = [entry.reasons for _, entry in known if entry.status == NOT_APPLICABLE]
        if known and len(reasons) == len(known):
            absent[cell] = tuple(dict.fromkeys(reason for of_row in reasons for reason in of_row))
    return errors, absent, missing


def _entry(row: Row, metric: str, network: str) -> Entry | None:
    """Entry of a metric for a network, or without network; failures come first."""
    found = [e for e in row.entries.get(metric, ()) if e.protocol.get("feature_network", network) == network]
    return next(iter(sorted(found, key=lambda entry: entry.status != FAILED)), None)
