"""Picture of a digits run: samples of its methods side by side, and accuracy over noise."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmark.errors import InputError
from benchmark.results.record import Results
from benchmark.results.results_file import read_results
from benchmark.system.archive import Archive
from benchmark.system.files import digest, replacing

SAMPLES = (
    ("held_out_images", "test images", ""),
    ("score_model", "score model", ""),
    ("noisy_classifier", "noisy classifier guidance", "@3"),
    ("denoising_assisted", "denoising assistance", "@3"),
    ("self_calibrating", "self-calibration", "@3"),
    ("joint", "joint diffusion", "@3"),
    ("cdm", "classification diffusion", ""),
    ("class_gaussians", "a Gaussian per class (floor)", "@1"),
)
"""Cells with samples to show, each with its label and the suffix of its file of samples."""
CURVES = (
    ("noisy_classifier", "noisy classifier"),
    ("denoising_assisted", "denoising assistance"),
    ("self_calibrating", "self-calibration"),
    ("joint", "joint diffusion"),
    ("class_gaussians", "a Gaussian per class (floor)"),
)
"""Cells whose accuracy over noise is drawn."""
BASE = "noisy_classifier"
"""Cell from which the accuracies of the others are subtracted, at equal noise by interpolation."""
COLUMNS, GAP = 10, 1
SOURCE = "Source"
"""Key of the picture's text that holds the hash of the numbers it was drawn from, see ``digest_of_curves``."""


def draw(run: Path, target: Path) -> None:
    """Draw the picture as a PNG of 1660 x 700 pixels; cells that the run lacks are left out.

    Args:
        run: Folder of a run with tables, of images in grey levels.
        target: File to write.

    Raises:
        InputError: If the run has no results or none of the cells.
    """
    from matplotlib.figure import Figure

    results = read_results(run / "results.json")
    strips = [(label, found) for cell, label, suffix in SAMPLES if (found := _strip(run / cell, suffix)) is not None]
    if not strips:
        raise InputError(f"{run}: it has samples of none of {', '.join(cell for cell, *_ in SAMPLES)}")
    figure = Figure(figsize=(10.375, 4.375), dpi=160, layout="constrained")
    axes = figure.subplot_mosaic([["samples", "accuracy"], ["samples", "gain"]], width_ratios=(1.9, 1.2))
    _show(axes["samples"], strips)
    curves = {cell: found for cell, _ in CURVES if (found := _curve(results, cell))}
    base = curves.get(BASE)
    for cell, label in CURVES:
        if cell in curves:
            levels, shares = map(list, (curves[cell], curves[cell].values()))
            axes["accuracy"].plot(levels, shares, marker=".", label=label, linewidth=1.6)
            there = np.interp(np.log(levels), np.log(list(base)), list(base.values())) if base else np.nan
            axes["gain"].plot(levels, shares - there, marker=".", linewidth=1.6)
    for name, title in (("accuracy", "accuracy on noisy test images"), ("gain", "minus the noisy classifier's")):
        axes[name].set(xscale="log", xlim=(0.1, 6))
        axes[name].set_title(title, fontsize=11)
        axes[name].set_xticks((0.1, 0.3, 1, 3), ("0.1", "0.3", "1", "3"))
        axes[name].tick_params(labelsize=9)
        axes[name].minorticks_off()
        axes[name].grid(alpha=0.25)
    axes["accuracy"].set(ylim=(0, 1.02))
    axes["accuracy"].legend(frameon=False, fontsize=9, loc="lower left")
    axes["gain"].set_xlabel("noise level, sigma / alpha", fontsize=11)
    with replacing(target) as temporary:
        about = {"Software": None, SOURCE: digest_of_curves(results)}
        figure.savefig(temporary, format="png", metadata=about)


def digest_of_curves(results: Results) -> str:
    """Hash of the accuracies that a picture of these results shows."""
    return digest({cell: [*_curve(results, cell).items()] for cell, _ in CURVES})


def _show(axes: Any, strips: Sequence[tuple[str, np.ndarray]]) -> None:
    """Strips of samples below one another, each with its label."""
    size = strips[0][1].shape[0]
    pixels = np.concatenate([strip for _, strip in strips])
    axes.imshow(pixels, cmap="gray_r", interpolation="nearest", aspect="equal", vmin=0, vmax=1)
    axes.set_yticks([(row + 0.5) * size for row in range(len(strips))], [label for label, _ in strips], fontsize=12)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _strip(cell: Path, suffix: str) -> np.ndarray | None:
    """Samples of a cell's first seed side by side, equally many of each class where classes were asked for."""
    found = sorted(cell.glob(f"seed*/samples{suffix}.npz"))
    if not found:
        return None
    archive = Archive(found[0])
    images, labels = archive.read("images"), archive.read("labels")
    if images.ndim != 4 or len(images) < COLUMNS:
        raise InputError(f"{found[0]}: it holds no {COLUMNS} images")
    grey = images[_chosen(labels)].mean(-1)
    tiles = np.pad(grey / max(images.max(), 1), ((0, 0), (GAP, GAP), (GAP, GAP)))
    return np.concatenate(list(tiles), axis=1)


def _chosen(labels: np.ndarray) -> Sequence[int]:
    """Indices of ``COLUMNS`` samples: by class, equally many of each, or the first."""
    classes = np.unique(labels)
    if labels.min() < 0 or COLUMNS % len(classes):
        return list(range(COLUMNS))
    each = COLUMNS // len(classes)
    return [int(index) for k in classes for index in np.flatnonzero(labels == k)[:each]]


def _curve(results: Results, cell: str) -> dict[float, float]:
    """Mean accuracy over seeds by noise level."""
    found: dict[float, list[float]] = defaultdict(list)
    for record in results.records:
        if record.cell == cell and record.metric.startswith("accuracy/t=") and record.value is not None:
            found[float(record.protocol["sigma"])].append(record.value)
    return {sigma: fmean(found[sigma]) for sigma in sorted(found) if sigma > 0}
