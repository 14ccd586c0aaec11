"""Pictures of the HTML report: accuracy over noise, samples and confusions of noise levels, each inside the page."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmark.errors import InputError
from benchmark.results.drawings import SIGMA, address, curves_figure, png, svg
from benchmark.results.per_class import class_names
from benchmark.results.record import FAILED, OK, Results
from benchmark.results.series import distinct, family_curves, over_noise
from benchmark.system.archive import Archive
from benchmark.system.names import NAME

CURVE = "accuracy/t=*"
LEVEL = "accuracy/level"
SHOWN_PER_CLASS = 8
SIDE = 36
"""Least side in pixels at which an image is shown, unless it is larger itself."""


def curve(results: Results, order: list[str]) -> Markup | None:
    """Accuracy over the noise level, a line per classifier, as inline SVG."""
    curves = distinct(family_curves(results, order, CURVE)) if over_noise(results, CURVE) else {}
    if not curves:
        return None
    return svg(curves_figure({"accuracy on test images": curves}, SIGMA, low=0, order=order), results.suite)


def first_seeds(run: Path, results: Results, order: Sequence[str]) -> dict[str, Path]:
    """The folder of each cell's first seed that did not fail."""
    named = filter(NAME.fullmatch, order)  # other names are no folders of a run and could lead out of it
    seeds = {cell: _sound_seeds(results, cell) for cell in named}
    return {cell: run / cell / f"seed{min(sound)}" for cell, sound in seeds.items() if sound}


def _sound_seeds(results: Results, cell: str) -> set[int]:
    own = [record for record in results.records if record.cell == cell]
    return {record.seed for record in own} - {record.seed for record in own if record.status == FAILED}


def without_pictures(results: Results, order: list[str]) -> list[tuple[str, str]]:
    """Cells whose seeds all failed, with the errors; their folders hold no finished results."""
    found = []
    for cell in order:
        errors = {record.reason: None for record in results.records if record.cell == cell and record.status == FAILED}
        if errors and not _sound_seeds(results, cell):
            found.append((cell, "; ".join(filter(None, errors))))
    return found


def grids(run: Path, results: Results, order: list[str]) -> list[dict[str, Any]]:
    """Samples of each cell's first seed at the scales of the results, a row per class for samples by class."""
    found_grids = []
    for cell, folder in first_seeds(run, results, order).items():
        scales = {record.protocol.get("guidance_scale") for record in results.records if record.cell == cell} - {None}
        found = {_scale(path): path for path in folder.glob("samples*.npz")}
        names = class_names(folder)
        for scale in sorted(found, key=float):
            if float(scale) not in (scales or {float("-inf")}):
                continue  # left by an earlier run of this folder
            images, labels = _samples(found[scale])
            enlarged = max(1, round(SIDE / images.shape[1]))
            caption = cell + ("" if scale == "-inf" else f", scale {scale}")
            by_class = bool(labels.min() >= 0)
            shown = [names.get(int(k), str(k)) for k in np.unique(labels)[:10]] if by_class else []
            picture, width = _picture(images, labels)
            found_grids.append(
                {"cell": cell, "caption": caption, "image": picture, "classes": shown, "width": width * enlarged}
            )
    return found_grids


def confusions(run: Path, results: Results, order: list[str]) -> list[dict[str, str]]:
    """Confusion matrices of classifiers of noise levels, for the first seed; shared ones appear once."""
    found: dict[bytes, dict[str, str]] = {}
    told = {record.cell for record in results.records if record.metric == LEVEL and record.status == OK}
    for cell, folder in first_seeds(run, results, order).items():
        path = folder / "diagnostics.npz"
        if cell in told and path.is_file():
            confusion = _arrays(path, "noise levels", "confusion")[0]
            if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or confusion.dtype.kind != "f":
                raise InputError(f"{path}: it holds no square matrix of noise levels; run the suite again")
            found.setdefault(confusion.tobytes(), {"cell": cell, "caption": cell, "image": _heat(confusion)})
    return list(found.values())


def _heat(confusion: np.ndarray) -> str:
    """Picture of a square matrix of probabilities, with axes from clean to pure noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(confusion, vmin=0, vmax=1, cmap="viridis", extent=(0, 1, 1, 0))
    axes.set(xlabel="predicted noise level, share of all", ylabel="true noise level")
    figure.colorbar(shown, label="mean probability")
    return png(figure)


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


def _picture(images: np.ndarray, labels: np.ndarray) -> tuple[str, int]:
    """PNG of samples in a data address, and its width: a grid of images, or points in the plane by class."""
    if images.shape[1:] != (1, 1, 2):
        grid = _arranged(images, labels)
        return _png(grid), grid.shape[1]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=100, layout="constrained")
    figure.add_subplot().scatter(images[:, 0, 0, 0], images[:, 0, 0, 1], c=labels, s=2, cmap="coolwarm")
    return png(figure), 400 // max(1, round(SIDE / images.shape[1]))


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
    return address(out)
