"""Figures of an experiment, each a PNG with its arrays in an ``.npz`` of the same name beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.results.answer_pictures import PICTURES
from benchmark.results.definitions import definition_of, family
from benchmark.results.drawings import Curves, Strip, curves_figure, strips_figure
from benchmark.results.page_pictures import first_seeds
from benchmark.results.results_file import read_results
from benchmark.results.series import abscissa, family_curves, networks_of, sweep_curves
from benchmark.results.vector_fields import Fields, figure_of
from benchmark.system.arrays import save_arrays
from benchmark.system.files import replacing

SCALE = "guidance scale"
"""Abscissa of sweeps."""


def write_figures(
    run: Path, to: Path, cells: Sequence[str], metrics: Sequence[str], pictures: Sequence[str]
) -> list[Path]:
    """Draw curves and pictures of cells into ``figures/``; returns the paths of the PNG files.

    Args:
        run: Folder of the run.
        to: Folder with ``results.json`` of the cells, and of the figures.
        cells: Names of the cells, in order.
        metrics: Metrics to draw as curves: a family such as ``accuracy/t=*`` over its noise levels or steps, another
            over guidance scales, if a cell has several.
        pictures: Names in ``PICTURES``.
    """
    results, found = read_results(to / "results.json"), []
    folder = to / "figures"
    for metric in metrics:
        name = metric.removesuffix("=*").replace("/", "-")
        if metric.endswith("=*"):
            if curves := family_curves(results, cells, metric):
                of, across, log = metric.rpartition("/")[0], abscissa(results, metric), family(metric).ratio
                found.append(_write(folder / f"{name}.png", curves, of, across, log=log, order=cells))
            continue
        for network in networks_of(results, metric):
            if curves := sweep_curves(results, cells, metric, network):
                path = folder / f"{name}-over-scale{'' if network is None else f'-{network}'}.png"
                log = definition_of(metric).ratio
                found.append(_write(path, curves, metric, SCALE, log=log, order=cells))
    folders = first_seeds(run, results, cells)
    for name in pictures:
        if drawn := PICTURES[name].drawn(folders):
            found.append(_write(folder / f"{name}.png", drawn, name, PICTURES[name].across, order=cells))
    return found


def drawing(
    drawn: list[Strip] | Curves | Fields, of: str, across: str, *, log: bool = False, order: Sequence[str] = ()
) -> Any:
    """Draw a picture's images, lines or fields; returns the figure. ``of`` and ``across`` name the axes of lines."""
    if isinstance(drawn, Fields):
        return figure_of(drawn)
    if isinstance(drawn, list):
        return strips_figure(drawn)
    return curves_figure({of: drawn}, across, log={of} if log else (), order=order)


def _arrays(drawn: list[Strip] | Curves | Fields, across: str) -> dict[str, np.ndarray]:
    """Arrays of what is drawn; of lines their values, ``(R, X)``, at all abscissas, ``(X,)``."""
    if isinstance(drawn, Fields):
        return {**drawn._asdict(), "rows": np.array(drawn.rows)}
    if isinstance(drawn, list):
        return {f"{number:02d} {strip.label}": strip.images for number, strip in enumerate(drawn)}
    xs = sorted({x for points in drawn.values() for x in points})
    values = np.array([[points.get(x, np.nan) for x in xs] for points in drawn.values()])
    return {"rows": np.array([*drawn]), "x": np.array(xs), "across": np.array(across), "values": values}


def _write(path: Path, drawn: list[Strip] | Curves | Fields, of: str, across: str, **looks: Any) -> Path:
    """Write a figure, see ``drawing``, and its arrays beside it; returns the path."""
    figure = drawing(drawn, of, across, **looks)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    save_arrays(path.with_suffix(".npz"), **_arrays(drawn, across))
    return path
