"""Numbers on validation images while methods trained, from TensorBoard's files of a run."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from benchmark.system.names import NAME

PART = "val/"
"""Start of the names of such numbers."""


def validation_curves(run: Path) -> Iterator[tuple[str, int, str, int, float]]:
    """Cell, seed, metric, finished steps and value, by cell, seed, metric and step.

    Where a training went back, to an earlier step or to its start, what it had logged beyond is left out.

    Args:
        run: Folder of a run, with ``CELL/seedN/tensorboard``.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    folders = [path for path in run.glob("*/seed*/tensorboard") if re.fullmatch(r"seed(0|[1-9]\d*)", path.parent.name)]
    for folder in sorted(folders, key=lambda path: (path.parts[-3], int(path.parts[-2][4:]))):
        if not NAME.fullmatch(folder.parts[-3]):
            continue
        events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
        events.Reload()
        for tag in sorted(name for name in events.Tags()[SCALARS] if name.startswith(PART)):
            kept: list[tuple[int, float]] = []
            for event in events.Scalars(tag):
                while kept and kept[-1][0] > event.step:
                    kept.pop()
                kept.append((event.step + 1, event.value))
            for step, value in kept:
                yield folder.parts[-3], int(folder.parts[-2][4:]), tag.removeprefix(PART), step, value


def to_csv(run: Path) -> str:
    """The curves as CSV, a number a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", "seed", "metric", "step", "value"])
    writer.writerows([*of, f"{value:.6g}"] for *of, value in validation_curves(run))
    return out.getvalue()
