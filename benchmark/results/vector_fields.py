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
        rows: Labels; a true field stands above the cells that have it.
        sigmas: Noise levels, ``(L,)``.
        places: Points of the plane, ``(N, 2)``.
        arrows: Gradients, ``(R, L, N, 2)``.
        truth: Row of the true field of each row, ``(R,)``.
    """

    rows: list[str]
    sigmas: np.ndarray
    places: np.ndarray
    arrows: np.ndarray
    truth: np.ndarray


def gradient_fields(files: Mapping[str, Path]) -> Fields | None:
    """Fields of the first class from the arrays of ``gradients``, by cell; None without a grid in the plane."""
    alike: dict[bytes, list[tuple[str, np.ndarray]]] = {}  # cells of other data have another truth
    for cell, path in files.items():
        archive = Archive(path)
        if "grid_places" not in archive.names or archive.read("grid_places").shape[1] != 2:
            continue
        first = archive.read("grid_classes") == 0
        places, sigmas = archive.read("grid_places")[first], archive.read("sigmas")
        truth = archive.read("grid_truth")[:, first]
        of_truth = alike.setdefault(truth.tobytes(), [(TRUTH, truth)])
        of_truth.append((cell, archive.read("grid_estimate")[:, first]))
    if not alike:
        return None
    rows = [row for of_truth in alike.values() for row in of_truth]
    counts = [len(of_truth) for of_truth in alike.values()]
    heads = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return Fields([label for label, _ in rows], sigmas, places, np.stack([arrows for _, arrows in rows]), heads)


def figure_of(fields: Fields) -> Any:
    """A panel for each row and noise level; arrows have the scale of their true field."""
    from matplotlib.figure import Figure

    rows, columns = fields.arrows.shape[:2]
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.2 * rows), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for column, sigma in enumerate(fields.sigmas):
        for row, label in enumerate(fields.rows):
            unit = np.quantile(np.linalg.norm(fields.arrows[fields.truth[row], column], axis=1), 0.95)
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
