"""Numbers of a run that stand in a row: over noise levels or steps, over guidance scales, and kinds of likelihood."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmark.results.definitions import family
from benchmark.results.drawings import SIGMA, Curves, Spread
from benchmark.results.record import OK, UNNORMALISED, Record, Results

LIKELIHOODS = {"nll": "", "nll/ode": "by the ODE"}
"""Metrics of likelihood, each with the end of its name in a legend."""


def family_curves(results: Results, cells: Sequence[str], pattern: str) -> Curves:
    """Means over seeds of a family of metrics by row.

    The abscissa is the noise level above 0, or the number in the metric's name where no record has a level.

    Args:
        results: Numbers of the run.
        cells: Order of the cells.
        pattern: Family such as ``accuracy/t=*``.
    """
    definition = family(pattern)
    own = [record for record in _measured(results, cells) if definition.matches(record.metric)]
    if over_noise(results, pattern):
        return _curves((record, record.protocol["sigma"]) for record in own if _has_level(record))
    return _curves((record, float(record.metric.rpartition("=")[2])) for record in own)


def over_noise(results: Results, pattern: str) -> bool:
    """Tell whether records of a family are of noise levels."""
    return any("sigma" in r.protocol for r in results.records if r.status == OK and family(pattern).matches(r.metric))


def abscissa(results: Results, pattern: str) -> str:
    """Name of a family's abscissa."""
    return SIGMA if over_noise(results, pattern) else pattern.removesuffix("=*").rpartition("/")[2]


def sweep_curves(results: Results, cells: Sequence[str], metric: str, network: Any = None) -> Curves:
    """Means over seeds of a metric by guidance scale, of the cells that have two at least.

    Args:
        results: Numbers of the run.
        cells: Order of the cells.
        metric: Name of the metric.
        network: Feature network of the numbers; None for numbers without.
    """
    own = (r for r in _measured(results, cells) if r.metric == metric and r.protocol.get("feature_network") == network)
    scaled = ((record, record.protocol.get("guidance_scale")) for record in own)
    found = _curves(((record, scale) for record, scale in scaled if scale is not None), apart=())
    return {label: points for label, points in found.items() if len(points) > 1}


def noise_curves(results: Results, cells: Sequence[str], metric: str, points: str) -> Curves:
    """Means over seeds of a metric of gradients, unscaled, by noise level at a kind of points."""
    own = (r for r in _measured(results, cells) if r.metric == metric and r.protocol.get("points") == points)
    unscaled = (record for record in own if record.protocol.get("scaling", "none") == "none" and _has_level(record))
    return _curves(((record, record.protocol["sigma"]) for record in unscaled), apart=())


def kinds_of_points(results: Results) -> list[str]:
    """Kinds of points at which gradients were measured."""
    return list(
        dict.fromkeys(r.protocol["points"] for r in results.records if r.status == OK and "points" in r.protocol)
    )


def networks_of(results: Results, metric: str) -> list[Any]:
    """Feature networks by which a metric was measured, None among them for numbers without."""
    own = (record for record in results.records if record.status == OK and record.metric == metric)
    return list(dict.fromkeys(record.protocol.get("feature_network") for record in own))


def distinct(curves: Curves) -> Curves:
    """Curves without those equal to an earlier one: cells that share a classifier have one, with the first's name."""
    kept: dict[str, Any] = {}
    for label, points in curves.items():
        if points not in kept.values():
            kept[label] = points
    return kept


def likelihoods(results: Results, cells: Sequence[str]) -> list[Spread]:
    """Bits per dimension of each cell by kind and way of measurement, those of unknown mass left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in _measured(results, cells):
        kind = record.protocol.get("kind", "estimate")
        if record.metric in LIKELIHOODS and kind != UNNORMALISED:
            group = f"{kind} {LIKELIHOODS[record.metric]}".strip()
            found.setdefault((record.cell, group), []).append(record.value)
    return [
        Spread(cell, group, fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0)
        for (cell, group), values in found.items()
    ]


def _measured(results: Results, cells: Sequence[str]) -> list[Record]:
    """Records with a value, by the order of cells."""
    places = {cell: place for place, cell in enumerate(cells)}
    own = (record for record in results.records if record.status == OK)
    return sorted(own, key=lambda record: places.get(record.cell, len(places)))


def _has_level(record: Record) -> bool:
    sigma = record.protocol.get("sigma")
    return type(sigma) in (int, float) and sigma > 0


def _curves(points: Iterable[tuple[Record, float]], apart: Sequence[str] = ("guidance_scale", "points")) -> Curves:
    """Means of records by abscissa, a curve for each cell and condition."""
    found: dict[str, dict[float, list[float]]] = {}
    for record, x in points:
        conditions = (f"@{v:g}" if k == "guidance_scale" else str(v) for k, v in record.protocol.items() if k in apart)
        found.setdefault(" ".join([record.cell, *conditions]), defaultdict(list))[x].append(record.value)
    return {label: {x: fmean(of[x]) for x in sorted(of)} for label, of in found.items()}
