"""Tables by class: accuracy of samples, and distances within each class."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmark.definitions import definition_of
from benchmark.files import read_json, write_text
from benchmark.markdown import escape, table
from benchmark.plan import Job

FILE = "per_class.json"
COLUMNS = (
    *("cell", "seed", "guidance_scale", "metric", "feature_network", "label", "value", "stderr"),
    "n",
)


def write_per_class(out: Path, jobs: Iterable[Job]) -> None:
    """Write ``per_class.csv`` and ``per_class.md`` of what finished evaluations found for each class they asked for."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        if job.part == "evaluate" and job.stages[-1].completed(job.folder) is not None:
            rows += read_json(job.folder / FILE)
    write_text(out / "per_class.csv", to_csv(rows))
    write_text(out / "per_class.md", to_markdown(rows))


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Long form, one number a row, unrounded."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each metric and feature network: cells at their scales by classes, means over seeds."""
    parts = []
    for metric, network in dict.fromkeys((row["metric"], row["feature_network"]) for row in rows):
        own = [row for row in rows if (row["metric"], row["feature_network"]) == (metric, network)]
        labels = sorted({row["label"] for row in own})
        shown = definition_of(metric).shown
        lines = []
        for cell, scale in dict.fromkeys((row["cell"], row["guidance_scale"]) for row in own):
            line = [escape(cell), "" if scale is None else f"{scale:g}"]
            for label in labels:
                values = [
                    row["value"]
                    for row in own
                    if (row["cell"], row["guidance_scale"], row["label"]) == (cell, scale, label)
                ]
                line.append(format(fmean(values), shown) if values else "missing")
            lines.append(line)
        arrow = definition_of(metric).arrow
        heading = f"### {metric} {arrow} of each class, feature network {escape(network)}"
        parts.append(f"{heading}\n\n{table(['cell', 'scale', *map(str, labels)], lines, 2)}")
    return "\n\n".join(parts) + "\n" if parts else "No samples were asked for by class.\n"
