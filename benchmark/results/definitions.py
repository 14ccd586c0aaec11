"""Definitions of metrics: unit, direction, range, the question that they answer, and the tolerance of comparisons.

No other module but the one that computes a metric knows its name. The tolerances suit results at the scale of the
digits suite: 360 test images, 1000 samples, minutes of training.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import inf
from typing import NamedTuple

TABLES = ("Classification", "Density and denoising", "Generation", "Cost")
CLASSIFICATION, DENSITY, GENERATION, COST = TABLES
UP, DOWN = True, False
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?")


@dataclass(frozen=True)
class MetricDefinition:
    """One metric, or a family whose ``pattern`` ends in ``=*`` (any decimal number, as in ``accuracy/t=0.5``).

    Args:
        pattern: Name in records and headings.
        table: Which of ``TABLES`` shows it.
        higher_is_better: None for a metric that should be near ``target``.
        absolute: Floor of the tolerance, in the metric's unit.
        relative: Tolerance as a fraction of the old value.
        unit: Unit of value, standard error and ``absolute``; "" if it has none, "fraction" for 0 ... 1.
        low: Smallest value that can occur.
        high: Largest value that can occur.
        shown: Format of a value in a Markdown table; records and CSV are never rounded.
        gating: False if a worse value only warns, as for timings.
        target: Best value where it is neither the largest nor the smallest.
        stage: Kind of the stage whose result it is computed from.
        expected: Whether every cell with that stage has a record of it.
        ranked: Whether tables mark the best value: not of densities without known mass, nor of signs of one.
        ratio: Whether claims compare two values by their ratio; the margin is then ``relative`` alone.
    """

    pattern: str
    table: str
    higher_is_better: bool | None
    absolute: float = 0.0
    relative: float = 0.0
    unit: str = ""
    low: float = -inf
    high: float = inf
    shown: str = "z.3f"
    gating: bool = True
    target: float | None = None
    stage: str = ""
    expected: bool = True
    ratio: bool = False
    ranked: bool = True

    @property
    def is_curve(self) -> bool:
        """Tell whether this is one point of a curve over ``t``."""
        return self.pattern.endswith("=*")

    @property
    def is_plotted(self) -> bool:
        """Tell whether a plot shows it in place of the tables."""
        return self.is_curve and self.table == CLASSIFICATION

    @property
    def arrow(self) -> str:
        """Sign of the better direction, for a heading."""
        if self.target is not None:
            return f"→{self.target:g}"
        return "↑" if self.higher_is_better else "↓"

    def merit(self, value: float) -> float:
        """``value`` turned so that higher is better: itself, its negative, or minus its distance to ``target``."""
        if self.target is not None:
            return -abs(value - self.target)
        return value if self.higher_is_better else -value

    def matches(self, name: str) -> bool:
        """Tell whether ``name`` is this metric or a member of this family."""
        if self.is_curve:
            prefix = self.pattern[:-1]
            return name.startswith(prefix) and _NUMBER.fullmatch(name[len(prefix) :]) is not None
        return name == self.pattern


def _fraction(pattern: str, table: str, better: bool, absolute: float) -> MetricDefinition:
    return MetricDefinition(pattern, table, better, absolute, unit="fraction", low=0.0, high=1.0)


def _distance(pattern: str, absolute: float, relative: float, shown: str = "z.3f") -> MetricDefinition:
    return MetricDefinition(pattern, GENERATION, DOWN, absolute, relative, shown=shown, ratio=True)


def _cost(pattern: str, better: bool, unit: str, absolute: float = 0.0, relative: float = 0.25) -> MetricDefinition:
    return MetricDefinition(pattern, COST, better, absolute, relative, unit, low=0.0, shown="z.1f", gating=False)


def _of(stage: str, *definitions: MetricDefinition, expected: bool = True) -> tuple[MetricDefinition, ...]:
    return tuple(replace(definition, stage=stage, expected=expected) for definition in definitions)


ALIGNED = ("alignment", "alignment_clean", "alignment_denoised")
"""Cosines of gradients at noisy, clean and denoised images with what denoising misses."""
# Order of columns. One noise level sees 360 images once, hence its wider floor.
DEFINITIONS = (
    *_of(
        "classify",
        _fraction("accuracy/clean", CLASSIFICATION, UP, 0.01),
        _fraction("accuracy/noisy", CLASSIFICATION, UP, 0.01),
        _fraction("accuracy/levels", CLASSIFICATION, UP, 0.01),
        _fraction("accuracy/middle", CLASSIFICATION, UP, 0.015),
        _fraction("accuracy/t=*", CLASSIFICATION, UP, 0.03),
        _fraction("accuracy/masked_x", CLASSIFICATION, UP, 0.03),
        _fraction("accuracy/masked_denoised", CLASSIFICATION, UP, 0.03),
    ),
    *_of(
        "classify",
        _fraction("top5/clean", CLASSIFICATION, UP, 0.01),
        _fraction("top5/noisy", CLASSIFICATION, UP, 0.01),
        _fraction("top5/levels", CLASSIFICATION, UP, 0.01),
        _fraction("top5/middle", CLASSIFICATION, UP, 0.015),
        _fraction("top5/t=*", CLASSIFICATION, UP, 0.03),
        expected=False,  # of tasks with few classes
    ),
    *_of(
        "classify",
        _fraction("f1", CLASSIFICATION, UP, 0.01),
        _fraction("ece", CLASSIFICATION, DOWN, 0.01),
        MetricDefinition("label_nll", CLASSIFICATION, DOWN, 0.03, 0.10, unit="nats", low=0.0),
        MetricDefinition("brier", CLASSIFICATION, DOWN, 0.02, low=0.0, high=2.0),
    ),
    *_of(
        "classify",
        MetricDefinition("nfe/classify", CLASSIFICATION, DOWN, unit="evaluations", low=0.0, shown="z.1f", gating=False),
        expected=False,  # of classifiers that evaluate a denoiser many times
    ),
    *_of(
        "likelihood",
        MetricDefinition("nll", DENSITY, DOWN, 0.02, unit="bits/dim"),
        MetricDefinition("nfe/nll", DENSITY, DOWN, unit="evaluations", low=0.0, shown="z.1f", gating=False, ratio=True),
    ),
    *_of(
        "diagnose",
        MetricDefinition("nll/ode", DENSITY, DOWN, 0.02, unit="bits/dim"),
        MetricDefinition(
            "nll/lattice", DENSITY, DOWN, 0.02, unit="bits/dim", ranked=False
        ),  # a density at points: unbounded
        MetricDefinition(
            "nll/t=*", DENSITY, DOWN, 0.02, unit="bits/dim", ranked=False
        ),  # of noisy images, which have no grey levels
        MetricDefinition("level_ce", DENSITY, DOWN, 0.02, unit="nats", low=0.0),
        _fraction("accuracy/level", DENSITY, UP, 0.01),
        MetricDefinition("mse/level", DENSITY, DOWN, 1e-4, 0.05, low=0.0, shown=".3g", ratio=True),
        MetricDefinition(
            "level_balance", DENSITY, None, 0.2, 0.10, unit="nats", shown="z.2f", target=0.0, ranked=False
        ),
    ),
    *_of("denoise", MetricDefinition("mse/denoise/t=*", DENSITY, DOWN, 1e-4, 0.05, low=0.0, shown=".3g", ratio=True)),
    *_of(
        "calibrate",
        MetricDefinition("mse/calibration/t=*", DENSITY, DOWN, 1e-3, 0.10, low=0.0, shown=".4g", ratio=True),
    ),
    *_of(
        "gradients",
        MetricDefinition("gradient/mse", DENSITY, DOWN, 0.0, 0.10, low=0.0, shown=".3g", ratio=True),
        MetricDefinition("gradient/cosine", DENSITY, UP, 0.03, low=-1.0, high=1.0),
        MetricDefinition("score/cosine", DENSITY, UP, 0.01, low=-1.0, high=1.0),
        expected=False,  # of data without an exact score
    ),
    *_of(
        "alignment",
        *(
            MetricDefinition(f"gradient/{name}", DENSITY, UP, floor, low=-1.0, high=1.0)
            for name, floor in {**dict.fromkeys(ALIGNED, 0.01), "smoothness": 0.05}.items()
        ),
        MetricDefinition("gradient/scale/t=*", DENSITY, None, 0.1, 0.1, target=1.0),
        MetricDefinition("gradient/alignment/t=*", CLASSIFICATION, UP, 0.01, low=-1.0, high=1.0),
        MetricDefinition("gradient/smoothness/t=*", CLASSIFICATION, UP, 0.05, low=-1.0, high=1.0),
        expected=False,
    ),
    *_of(
        "curves",
        MetricDefinition("mse/levels", DENSITY, DOWN, 1e-4, 0.05, low=0.0, shown=".3g", ratio=True),
        MetricDefinition("mse/levels/t=*", CLASSIFICATION, DOWN, 1e-4, 0.05, low=0.0, shown=".3g", ratio=True),
        expected=False,
    ),
    *_of(
        "probe",
        _fraction("probe", CLASSIFICATION, UP, 0.02),
        _fraction("probe/t=*", CLASSIFICATION, UP, 0.03),
        expected=False,
    ),
    *_of(
        "steps",
        _fraction("steps/asked", GENERATION, UP, 0.02),
        _fraction("steps/decided", GENERATION, DOWN, 0.05),
        _fraction("steps/asked/t=*", CLASSIFICATION, UP, 0.05),
        expected=False,
    ),
    *_of(
        "counterfactual",
        _fraction("counterfactual/asked", GENERATION, UP, 0.03),
        _fraction("counterfactual/kept", GENERATION, DOWN, 0.03),
        _fraction("counterfactual/own", GENERATION, UP, 0.03),
        MetricDefinition("counterfactual/distance", GENERATION, DOWN, 0.01, 0.05, low=0.0),
        MetricDefinition("counterfactual/distance_unguided", GENERATION, DOWN, 0.01, 0.05, low=0.0),
        _fraction("counterfactual/local", GENERATION, UP, 0.03),
        expected=False,
    ),
    *_of(
        "features",
        _fraction("accuracy/generated", GENERATION, UP, 0.02),
        _distance("fd", 0.05, 0.10),
        _distance("fid", 0.5, 0.05, shown="z.2f"),
        _distance("fd/matched", 0.05, 0.10),
        _distance("fid/matched", 0.5, 0.05, shown="z.2f"),
        _distance("fd/intra", 0.10, 0.15),
        _distance("fid/intra", 1.0, 0.10, shown="z.2f"),
        _distance("sfid", 0.5, 0.05, shown="z.2f"),
        _distance("kd", 0.005, 0.10, shown="z.4f"),
        _distance("kid", 0.001, 0.10, shown="z.4f"),
        MetricDefinition("is", GENERATION, UP, 0.0, 0.03, low=0.0, shown="z.2f"),
        _fraction("precision", GENERATION, UP, 0.03),
        _fraction("recall", GENERATION, UP, 0.03),
        _fraction("prd/precision", GENERATION, UP, 0.03),
        _fraction("prd/recall", GENERATION, UP, 0.03),
        MetricDefinition("nn_ratio", GENERATION, None, 0.05, low=0.0, shown="z.2f", target=1.0),  # 0: copies
    ),
    *_of("train", _cost("throughput/train", UP, "images/s")),
    *_of("sample", _cost("throughput/sample", UP, "images/s")),
    *_of("train", _cost("cpu_seconds/train", DOWN, "s", 1.0)),
    *_of("sample", _cost("cpu_seconds/sample", DOWN, "s", 1.0)),
    _cost("cpu_seconds/total", DOWN, "s", 1.0),
)
_EXACT = {definition.pattern: definition for definition in DEFINITIONS if not definition.is_curve}
_FAMILIES = tuple(definition for definition in DEFINITIONS if definition.is_curve)


def definition_of(metric: str) -> MetricDefinition:
    """The definition of a metric's name.

    Raises:
        ValueError: If no definition matches; the message suggests the nearest name.
    """
    if metric in _EXACT:
        return _EXACT[metric]
    for family in _FAMILIES:
        if family.matches(metric):
            return family
    raise ValueError(f"unknown metric {metric!r}{suggestion(metric, (d.pattern for d in DEFINITIONS))}")


def family(pattern: str) -> MetricDefinition:
    """The definition of a family such as ``accuracy/t=*``.

    Raises:
        ValueError: If there is no such family; the message suggests the nearest.
    """
    found = next((definition for definition in _FAMILIES if definition.pattern == pattern), None)
    if found is None:
        raise ValueError(f"unknown family {pattern!r}{suggestion(pattern, (d.pattern for d in _FAMILIES))}")
    return found


_ALWAYS = {definition.stage for definition in DEFINITIONS if definition.expected}


def is_asked(metric: str) -> bool:
    """Tell whether a metric answers a question that only some cells are asked."""
    return definition_of(metric).stage not in _ALWAYS


def column_order(metric: str) -> tuple[int, float]:
    """Sort key of a metric's name: place in ``DEFINITIONS``, then the number after ``=``."""
    definition = definition_of(metric)
    return DEFINITIONS.index(definition), float(metric.split("=")[1]) if definition.is_curve else 0.0


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, else all of them."""
    known = list(known)
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


HEADLINE_METRICS = ("accuracy/clean", "accuracy/middle", "nll", "accuracy/generated", "fd")


def metrics_of(stage: str, expected: bool = True) -> tuple[str, ...]:
    """Metrics computed from a stage's result that every cell has a record of, or all others; without curves."""
    return tuple(d.pattern for d in DEFINITIONS if d.stage == stage and d.expected == expected and not d.is_curve)


class FidelityNames(NamedTuple):
    """Names of distances between features."""

    frechet: str
    matched: str
    intra: str
    kernel: str


def fidelity_names(network: str) -> FidelityNames:
    """Names of distances between a network's features: FID and KID for Inception alone."""
    frechet, kernel = ("fid", "kid") if network == "inception" else ("fd", "kd")
    return FidelityNames(frechet, f"{frechet}/matched", f"{frechet}/intra", kernel)


def generation_metrics(networks: Iterable[str]) -> tuple[str, ...]:
    """Metrics of samples that these networks look at."""
    absent = {*fidelity_names(""), *fidelity_names("inception"), "sfid"}
    for network in networks:
        absent -= {*fidelity_names(network), "sfid" if network == "inception" else ""}
    return tuple(metric for metric in metrics_of("features") if metric not in absent)
