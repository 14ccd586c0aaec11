"""Fields of classifiers' gradients in the plane, beside the true one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.system.archive import Archive

TRUTH = "true gradient"
LONGEST = 1.5
"""Longest arrow, in units of the true field's 95th percentile at that noise level."""


class Fields(NamedTuple):
    """Gradients of the log-probability of one class.

    Attributes:
        rows: Labels, the true field first.
        sigmas: Noise levels, ``(L,)``.
        places: Points of the plane, ``(N, 2)``.
        arrows: Gradients, ``(R, L, N, 2)``.
    """

    rows: list[str]
    sigmas: np.ndarray
    places: np.ndarray
    arrows: np.ndarray


def gradient_fields(files: Mapping[str, Path]) -> Fields | None:
    """Fields of the first class from the arrays of ``gradients``, by cell; None without a grid in the plane."""
    found: dict[str, np.ndarray] = {}
    for cell, path in files.items():
        archive = Archive(path)
        if "grid_places" not in archive.names or archive.read("grid_places").shape[1] != 2:
            continue
        first = archive.read("grid_classes") == 0
        places, sigmas = archive.read("grid_places")[first], archive.read("sigmas")
        found.setdefault(TRUTH, archive.read("grid_truth")[:, first])
        found[cell] = archive.read("grid_estimate")[:, first]
    return Fields([*found], sigmas, places, np.stack([*found.values()])) if found else None


def figure_of(fields: Fields) -> Any:
    """A panel for each row and noise level; arrows of a column have one scale, that of its true field."""
    from matplotlib.figure import Figure

    rows, columns = fields.arrows.shape[:2]
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.2 * rows), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for column, sigma in enumerate(fields.sigmas):
        unit = np.quantile(np.linalg.norm(fields.arrows[0, column], axis=1), 0.95)
        for row, label in enumerate(fields.rows):
            arrows = fields.arrows[row, column] / (unit or 1)
            lengths = np.linalg.norm(arrows, axis=1, keepdims=True)
            arrows = arrows * np.minimum(1, LONGEST / np.maximum(lengths, LONGEST))
            axes = panels[row, column]
            axes.quiver(*fields.places.T, *arrows.T, angles="xy", scale=24, width=0.004)
            axes.set(xticks=[], yticks=[], aspect="equal")
            if row == 0:
                axes.set_title(f"sigma {sigma:.3g}", fontsize=9)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    return figure
