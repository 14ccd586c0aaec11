"""The HTML report of a run."""

import base64
import io
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.errors import InputError, shown
from benchmark.results.definitions import TABLES, column_order, definition_of
from benchmark.results.per_class import class_names
from benchmark.results.record import FAILED, NOT_APPLICABLE, Results
from benchmark.results.record import OK as MEASURED
from benchmark.results.results_file import read_results
from benchmark.results.rows import Entry, Row, rows
from benchmark.results.tables import by_network, reasons_of, rows_of
from benchmark.system.archive import Archive
from benchmark.system.files import write_text
from benchmark.system.names import NAME

CURVE = "accuracy/t="
NAMES = 20
"""Curves in a column of the legend."""
SHOWN_PER_CLASS = 8


def write_report(run: Path, cells: list[str] | None = None, floors: Collection[str] = frozenset()) -> Path:
    """Write the page of a run; returns its path.

    Args:
        run: Its folder.
        cells: Order of rows; by default that of the results.
        floors: Trivial cells for comparison, without some metrics.
    """
    results = read_results(run / "results.json")
    order = cells or list(dict.fromkeys(record.cell for record in results.records))
    found = rows(results, order)
    template = Environment(
        loader=PackageLoader("benchmark.results", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html.j2")
    page = template.render(
        results=results,
        tables=[_table(*table, floors) for name in TABLES for table in _by_network(name, found)],
        curve=_curve(results, order),
        grids=_grids(run, results, order),
        unseen=_without_pictures(results, order),
        confusions=_confusions(run, results, order),
    )
    try:
        write_text(run / "report.html", page)
    except OSError as error:
        raise InputError(f"{run / 'report.html'}: cannot be written: {error.strerror}") from None
    return run / "report.html"


def _by_network(name: str, all_rows: list[Row]) -> list[tuple[str, list[Row], list[str]]]:
    metrics = _metrics(name, all_rows)
    return by_network(name, all_rows, metrics) if metrics else []


def _metrics(name: str, all_rows: list[Row]) -> list[str]:
    """Metrics of a table with a number, failure or gap in any row, in order."""
    return sorted(
        {
            metric
            for row in all_rows
            for metric in row.entries
            if definition_of(metric).table == name and not definition_of(metric).is_plotted and _asked(row, metric)
        },
        key=column_order,
    )


def _table(heading: str, all_rows: list[Row], metrics: list[str], floors: Collection[str]) -> dict[str, Any]:
    """Head and body of one table, and notes of failures and inapplicable cells."""
    chosen = rows_of(all_rows, metrics, floors)
    absent = {row.cell: reasons_of(row, metrics) for row in chosen}
    kept = [row for row in chosen if not reasons_of(row, metrics)]
    elsewhere = {(row.cell, metric) for row in kept for metric in row.entries}  # in another row of the cell
    head = [(metric, f"{definition_of(metric).arrow} {definition_of(metric).unit}".strip()) for metric in metrics]
    body = []
    for row in kept:
        scale = "" if row.guidance_scale is None else f"{row.guidance_scale:g}"
        cells = []
        for metric in metrics:
            nothing = ("", "") if (row.cell, metric) in elsewhere else ("missing", "not finished")
            cells.append(_cell(row.entries.get(metric, ())) or nothing)
        body.append((row.cell, scale, cells))
    failed: dict[str, dict[str, None]] = {}
    for row in kept:
        for entry in (entry for metric in metrics for entry in row.entries.get(metric, ()) if entry.status == FAILED):
            failed.setdefault(row.cell, {}).update(dict.fromkeys(entry.reasons))
    notes = [("failed", cell, "; ".join(reasons)) for cell, reasons in failed.items()]
    notes += [("n/a throughout", cell, "; ".join(reasons)) for cell, reasons in absent.items() if reasons]
    return {"name": heading, "head": head, "body": body, "scaled": any(s for _, s, _ in body), "notes": notes}


def _asked(row: Row, metric: str) -> bool:
    return any(entry.status != NOT_APPLICABLE for entry in row.entries.get(metric, ()))


def _cell(entries: tuple[Entry, ...]) -> tuple[str, str] | None:
    """Text and tooltip of a table cell; None without entries."""
    found = [_entry(entry) for entry in sorted(entries, key=lambda entry: entry.status != FAILED)]
    return ("; ".join(text for text, _ in found), "; ".join(detail for _, detail in found)) if found else None


def _entry(entry: Entry) -> tuple[str, str]:
    if entry.status != MEASURED:
        return entry.status, "; ".join(entry.reasons)
    digits = definition_of(entry.metric).shown
    text = f"{entry.mean:{digits}}" + ("" if entry.stderr is None else f" ± {entry.stderr:{digits}}")
    details = {"n": ", ".join(map(str, entry.n)), "seeds": len(entry.seeds), **entry.protocol}
    return text, ", ".join(f"{key} {value}" for key, value in details.items())


def _curve(results: Results, order: list[str]) -> Markup | None:
    """Accuracy over the noise level, a line per classifier, as inline SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    points: dict[str, dict[float, list[float]]] = {cell: defaultdict(list) for cell in order}
    for record in results.records:
        sigma = record.protocol.get("sigma")
        if record.metric.startswith(CURVE) and record.value is not None and type(sigma) in (int, float) and sigma > 0:
            points[record.cell][sigma].append(record.value)
    drawn: list[dict[float, list[float]]] = []
    for cell in order:  # cells that share a classifier have one line with the first name
        if points[cell] and points[cell] not in drawn:
            drawn.append(points[cell])
        else:
            del points[cell]
    if not points:
        return None
    with matplotlib.rc_context({"svg.hashsalt": results.suite, "svg.fonttype": "none", "font.size": 11}):
        columns = math.ceil(len(points) / NAMES)
        figure, axes = pyplot.subplots(figsize=(8 + 2 * columns, 4.8), layout="constrained")
        styles = itertools.product(("-", "--", ":", "-."), pyplot.get_cmap("tab10").colors)
        for (cell, found), (line, color) in zip(points.items(), itertools.cycle(styles), strict=False):
            sigmas = sorted(found)
            means = [np.mean(found[s]) for s in sigmas]
            name = shown(cell).replace("$", r"\$")  # a pair would start mathematics
            axes.plot(sigmas, means, label=name, color=color, linestyle=line, marker=".", linewidth=1.6)
        axes.set(xscale="log", xlabel="noise level, sigma / alpha", ylabel="accuracy on test images", ylim=(0, 1.02))
        axes.grid(alpha=0.25)
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside right upper", ncols=columns, fontsize=9, frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return Markup(out.getvalue()[out.getvalue().index("<svg") :])


def _first_seeds(run: Path, results: Results, order: list[str]) -> dict[str, Path]:
    """The folder of each cell's first seed that did not fail."""
    named = filter(NAME.fullmatch, order)  # other names are no folders of a run and could lead out of it
    seeds = {cell: _sound_seeds(results, cell) for cell in named}
    return {cell: run / cell / f"seed{min(sound)}" for cell, sound in seeds.items() if sound}


def _sound_seeds(results: Results, cell: str) -> set[int]:
    own = [record for record in results.records if record.cell == cell]
    return {record.seed for record in own} - {record.seed for record in own if record.status == FAILED}


def _without_pictures(results: Results, order: list[str]) -> list[tuple[str, str]]:
    """Cells whose seeds all failed, with the errors; their folders hold no finished results."""
    found = []
    for cell in order:
        errors = {record.reason: None for record in results.records if record.cell == cell and record.status == FAILED}
        if errors and not _sound_seeds(results, cell):
            found.append((cell, "; ".join(filter(None, errors))))
    return found


def _grids(run: Path, results: Results, order: list[str]) -> list[dict[str, Any]]:
    """Samples of each cell's first seed, a row per class for samples by class."""
    grids = []
    for cell, folder in _first_seeds(run, results, order).items():
        found = {_scale(path): path for path in folder.glob("samples*.npz")}
        names = class_names(folder)
        for scale in sorted(found, key=float):
            images, labels = _samples(found[scale])
            caption = cell + ("" if scale == "-inf" else f", scale {scale}")
            by_class = bool(labels.min() >= 0)
            shown = [names.get(int(k), str(k)) for k in np.unique(labels)[:10]] if by_class else []
            grids.append({"caption": caption, "image": _picture(images, labels), "classes": shown})
    return grids


def _confusions(run: Path, results: Results, order: list[str]) -> list[dict[str, str]]:
    """Confusion matrices of classifiers of noise levels, for the first seed; shared ones appear once."""
    found: dict[bytes, dict[str, str]] = {}
    for cell, folder in _first_seeds(run, results, order).items():
        path = folder / "diagnostics.npz"
        if path.is_file():
            confusion = _arrays(path, "noise levels", "confusion")[0]
            if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or confusion.dtype.kind != "f":
                raise InputError(f"{path}: it holds no square matrix of noise levels; run the suite again")
            found.setdefault(confusion.tobytes(), {"caption": cell, "image": _heat(confusion)})
    return list(found.values())


def _heat(confusion: np.ndarray) -> str:
    """Picture of a square matrix of probabilities, with axes from clean to pure noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(confusion, vmin=0, vmax=1, cmap="viridis", extent=(0, 1, 1, 0))
    axes.set(xlabel="predicted noise level, share of all", ylabel="true noise level")
    figure.colorbar(shown, label="mean probability")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return _address(out)


def _scale(path: Path) -> str:
    """Guidance scale in the name of a file of samples; ``-inf`` if there is none."""
    named = re.fullmatch(r"samples(?:@(\d+(?:\.\d+)?(?:e[+-]\d+)?))?", path.stem)
    if named is None:
        raise InputError(f"{path} is not named as samples are; remove it")
    return named[1] or "-inf"


def _samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, H, W, C)`` and labels ``(N,)``."""
    images, labels = _arrays(path, "samples", "images", "labels")
    shown = images.ndim == 4 and (images.shape[3] in (1, 3) or images.shape[1:] == (1, 1, 2))
    if (
        not shown
        or not images.size
        or images.dtype.kind not in "iu"
        or labels.shape != images.shape[:1]
        or labels.dtype.kind != "i"
    ):
        raise InputError(f"{path}: it holds no samples (N, H, W, C) with labels (N,); run the suite again")
    return images, labels


def _arrays(path: Path, what: str, *names: str) -> list[np.ndarray]:
    """Arrays of a file, read without pickle."""
    try:
        archive = Archive(path)
        return [archive.read(name) for name in names if archive.declared(name)]
    except (InputError, MemoryError):
        raise InputError(f"{path}: no {what} can be read from it; remove it or run the suite again") from None


def _picture(images: np.ndarray, labels: np.ndarray) -> str:
    """PNG of samples in a data address: a grid of images, or points in the plane with a colour for each class."""
    if images.shape[1:] != (1, 1, 2):
        return _png(_arranged(images, labels))
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=100, layout="constrained")
    figure.add_subplot().scatter(images[:, 0, 0, 0], images[:, 0, 0, 1], c=labels, s=2, cmap="coolwarm")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return _address(out)


def _arranged(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Grid of the first images in ten columns, equally many of each class for samples by class."""
    if labels.min() < 0:
        columns = np.array_split(np.arange(10 * SHOWN_PER_CLASS) % len(images), 10)
    else:
        of_class = [np.flatnonzero(labels == k) for k in np.unique(labels)[:10]]
        each = max(1, min(10 // len(of_class), *map(len, of_class)))
        columns = [part for rows in of_class for part in np.array_split(rows[: each * SHOWN_PER_CLASS], each)]
    size, height = images.shape[1], min(len(c) for c in columns)
    gap = 1
    grid = np.full((height * (size + gap), len(columns) * (size + gap), images.shape[3]), 255, dtype=np.float64)
    top = max(int(images.max()), 1)
    for i, column in enumerate(columns):
        for j, index in enumerate(column[:height]):
            place = slice(j * (size + gap), j * (size + gap) + size), slice(i * (size + gap), i * (size + gap) + size)
            grid[place] = images[index] / top * 255
    return grid.astype(np.uint8)


def _png(grid: np.ndarray) -> str:
    """A PNG as a data address."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(grid[..., 0] if grid.shape[2] == 1 else grid).save(out, format="PNG", optimize=True)
    return _address(out)


def _address(png: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
