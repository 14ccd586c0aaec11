"""Figures of the HTML report: sweeps, likelihood, denoising, gradients, and pictures of what cells answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from benchmark.errors import InputError
from benchmark.results.answer_pictures import PICTURES
from benchmark.results.definitions import definition_of, family
from benchmark.results.drawings import SIGMA, curves_figure, png, spreads_figure, svg
from benchmark.results.figures import SCALE, drawing
from benchmark.results.page_pictures import first_seeds
from benchmark.results.record import OK, Results
from benchmark.results.series import (
    abscissa,
    distinct,
    family_curves,
    kinds_of_points,
    likelihoods,
    networks_of,
    noise_curves,
    sweep_curves,
)

SWEPT = ("accuracy/generated", "fd", "fid", "is", "precision", "recall")
"""Metrics whose course over guidance scales the page shows."""
FAMILIES = {
    "top5/t=*": "Top-5 accuracy of test images with noise",
    "nll/t=*": "Likelihood of test images with noise",
    "mse/denoise/t=*": "Denoising: squared error of the predicted noise",
    "mse/levels/t=*": "Denoising at each noise level: squared error of the predicted noise",
    "mse/calibration/t=*": "Calibration: squared error of the noise that a classifier's sum of exponentials predicts",
    "gradient/alignment/t=*": "Alignment of gradients with what denoising misses",
    "gradient/smoothness/t=*": "Smoothness of gradients",
    "probe/t=*": "Accuracy of linear probes of features",
    "steps/asked/t=*": "Share of samples that show the class asked for, on the way from noise",
}
"""Families of metrics whose curves the page shows, beside accuracy, which has its own part."""
GRADIENTS = ("gradient/mse", "gradient/cosine", "score/cosine")


class Shown(NamedTuple):
    """A figure of the page: lines as an inline SVG, or a picture as a data address; without either, one that failed."""

    title: str
    svg: Markup | None
    image: str = ""


def page_figures(run: Path, results: Results, order: list[str]) -> Iterator[Shown]:
    """Figures of all that a run measured along a row of numbers, and pictures of what it asked.

    Args:
        run: Folder of the cells, with what they answered.
        results: Numbers of the run.
        order: Order of the cells.
    """
    yield from _sweeps(results, order)
    if spreads := likelihoods(results, order):
        yield Shown("Likelihood of test images", svg(spreads_figure(spreads, "bits per dimension"), results.suite))
    for pattern, title in FAMILIES.items():
        curves = distinct(family_curves(results, order, pattern))
        if any(len(points) > 1 for points in curves.values()):
            name = pattern.rpartition("/")[0]
            log = {name} if family(pattern).ratio else ()
            figure = curves_figure({name: curves}, abscissa(results, pattern), log=log, order=order)
            yield Shown(title, svg(figure, results.suite))
    yield from _gradients(results, order)
    yield from _pictures(run, results, order)


def _sweeps(results: Results, order: list[str]) -> Iterator[Shown]:
    """A figure for each feature network, with a panel a metric."""
    networks = dict.fromkeys(network for metric in SWEPT for network in networks_of(results, metric))
    for network in networks:
        found = {metric: sweep_curves(results, order, metric, network) for metric in SWEPT}
        if panels := {metric: curves for metric, curves in found.items() if curves}:
            log = {metric for metric in panels if definition_of(metric).ratio}
            figure = curves_figure(panels, SCALE, log=log, order=order)
            by = f", by {network}" if len(networks) > 1 else ""
            yield Shown(f"Guided samples over the guidance scale{by}", svg(figure, results.suite))


def _gradients(results: Results, order: list[str]) -> Iterator[Shown]:
    """A figure for each kind of points, with a panel a metric."""
    for points in kinds_of_points(results):
        found = {metric: noise_curves(results, order, metric, points) for metric in GRADIENTS}
        if panels := {metric: curves for metric, curves in found.items() if curves}:
            log = {metric for metric in panels if definition_of(metric).ratio}
            figure = curves_figure(panels, SIGMA, log=log, order=order)
            yield Shown(f"Gradients against the true ones, {points}", svg(figure, results.suite))


def _pictures(run: Path, results: Results, order: list[str]) -> Iterator[Shown]:
    """Pictures of answers whose numbers the results hold; others in the folders are of other questions."""
    answered = {(r.cell, definition_of(r.metric).stage) for r in results.records if r.status == OK}
    folders = first_seeds(run, results, order)
    for name, (kind, of_folders, title, across) in PICTURES.items():
        own = {cell: folder for cell, folder in folders.items() if (cell, kind) in answered}
        if not title or not own:
            continue
        try:
            drawn = of_folders(own)
            figure = drawing(drawn, name, across, order=order) if drawn else None
        except (InputError, KeyError, ValueError, IndexError, TypeError, OSError):
            yield Shown(f"{title}: cannot be drawn from the answers of {', '.join(own)}; run the suite again", None)
            continue
        if figure is not None:
            lines = isinstance(drawn, dict)
            yield Shown(title, svg(figure, results.suite) if lines else None, "" if lines else png(figure))
