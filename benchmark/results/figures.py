"""Figures of an experiment, each a PNG with its arrays in an ``.npz`` of the same name beside it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import shown
from benchmark.results.definitions import family
from benchmark.results.record import OK, Results
from benchmark.results.results_file import read_results
from benchmark.results.vector_fields import Fields, figure_of, gradient_fields
from benchmark.system.archive import Archive
from benchmark.system.arrays import save_arrays
from benchmark.system.files import read_manifest, replacing

COLUMNS = 10
"""Images of a row."""
TIME = 0.35
"""Time of the gradients that are shown, as in (a) Fig. 3."""
Strips = list[tuple[str, np.ndarray]]
"""Rows of images, each a label and ``(N, H, W, C)`` with values of 0 to 1."""

Curves = Mapping[str, Mapping[float, float]]
"""Values by abscissa, by label."""

SIGMA, SHARE = "noise level, sigma / alpha", "noise level, share of all"
"""Names of abscissas."""


def write_figures(
    run: Path, to: Path, cells: Sequence[str], families: Sequence[str], pictures: Sequence[str]
) -> list[Path]:
    """Draw curves and pictures of cells into ``figures/``; returns the paths of the PNG files.

    Args:
        run: Folder of the run.
        to: Folder with ``results.json`` of the cells, and of the figures.
        cells: Names of the cells, in order.
        families: Families of metrics to draw as curves, such as ``accuracy/t=*``.
        pictures: Names in ``PICTURES``.
    """
    results, found = read_results(to / "results.json"), []
    folder = to / "figures"
    for pattern in families:
        if curves := _curves(results, cells, pattern):
            name = pattern.removesuffix("=*").replace("/", "-")
            across = SIGMA if _has_sigma(results, pattern) else pattern.rpartition("/")[2]
            found.append(_draw_curves(folder / f"{name}.png", curves, pattern.rpartition("/")[0], across))
    seeds = {cell: min(r.seed for r in results.records if r.cell == cell) for cell in {r.cell for r in results.records}}
    folders = {cell: run / cell / f"seed{seeds[cell]}" for cell in cells if cell in seeds}
    for name in pictures:
        if drawn := PICTURES[name](folders):
            path = folder / f"{name}.png"
            if isinstance(drawn, Fields):
                found.append(_save(path, figure_of(drawn), **{**drawn._asdict(), "rows": np.array(drawn.rows)}))
            else:
                draw = _draw_strips if isinstance(drawn, list) else partial(_draw_curves, of=name, across=SHARE)
                found.append(draw(path, drawn))
    return found


def _curves(results: Results, cells: Sequence[str], pattern: str) -> Curves:
    """Means over seeds of a family by row, and by sigma, or by the number in the metric's name where there is none."""
    points: dict[str, dict[float, list[float]]] = {}
    for record in sorted(results.records, key=lambda r: cells.index(r.cell) if r.cell in cells else len(cells)):
        if record.status == OK and family(pattern).matches(record.metric):
            own = {k: v for k, v in record.protocol.items() if k in ("guidance_scale", "points")}
            label = " ".join([record.cell, *(f"@{v:g}" if k == "guidance_scale" else str(v) for k, v in own.items())])
            x = record.protocol.get("sigma", float(record.metric.rpartition("=")[2]))
            points.setdefault(label, defaultdict(list))[x].append(record.value)
    return {label: {x: float(np.mean(of[x])) for x in sorted(of)} for label, of in points.items()}


def _has_sigma(results: Results, pattern: str) -> bool:
    return any("sigma" in r.protocol for r in results.records if r.status == OK and family(pattern).matches(r.metric))


def _draw_curves(path: Path, curves: Curves, of: str, across: str) -> Path:
    """Lines with their labels.

    Args:
        path: PNG file.
        curves: The lines.
        of: Name of the ordinate.
        across: Name of the abscissa.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for label, points in curves.items():
        axes.plot([*points], [*points.values()], marker=".", label=_plain(label))
    xs = sorted({x for points in curves.values() for x in points})
    spread = xs[0] > 0 and xs[-1] > 20 * xs[0]
    axes.set(xlabel=across, ylabel=of)
    axes.set_xscale("log" if spread else "linear")
    axes.grid(alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    values = np.array([[points.get(x, np.nan) for x in xs] for points in curves.values()])
    return _save(path, figure, rows=np.array([*curves]), x=np.array(xs), across=np.array(across), values=values)


def _draw_strips(path: Path, strips: Strips) -> Path:
    """Rows of images below one another, each with its label; smaller images stand at the top left of their places."""
    from matplotlib.figure import Figure

    columns, height, width = (max(images.shape[axis] for _, images in strips) for axis in range(3))
    canvas = np.ones((len(strips) * (height + 1), columns * (width + 1), 3))
    for row, (_, images) in enumerate(strips):
        for column, image in enumerate(images):
            top, left = row * (height + 1), column * (width + 1)
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = np.clip(image, 0, 1)
    tile = max(0.45, min(1.2, 9 / columns))
    figure = Figure(figsize=(columns * tile + 3, len(strips) * tile + 0.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks([(row + 0.5) * (height + 1) for row in range(len(strips))], [_plain(s) for s, _ in strips])
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    return _save(path, figure, **{f"{number:02d} {label}": images for number, (label, images) in enumerate(strips)})


def _plain(label: str) -> str:
    return shown(label, 60).replace("$", r"\$")  # a pair would start mathematics


def _save(path: Path, figure: Any, **arrays: np.ndarray) -> Path:
    """Write a picture, and its arrays beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    save_arrays(path.with_suffix(".npz"), **arrays)
    return path


def _samples(folders: Mapping[str, Path]) -> Strips:
    """First samples of each cell and scale: in one column, the same noise."""
    found = []
    for cell, folder in folders.items():
        for path in _answers(folder, "sample"):
            images = Archive(path).read("images")[:COLUMNS]
            if images.shape[1:3] != (1, 1):
                found.append((f"{cell}{path.stem.removeprefix('samples')}", images / max(1, images.max())))
    return found


def _answers(folder: Path, kind: str) -> list[Path]:
    """Arrays of the finished stages of a kind, by rising guidance scale; a failed one leaves other files behind."""
    manifests = [path for path in (folder / "stages").glob(f"{kind}*.json") if path.stem.partition("@")[0] == kind]
    manifests.sort(key=lambda path: float(path.stem.partition("@")[2] or -1))
    names = [name for path in manifests for name in (read_manifest(path) or {}).get("outputs", {})]
    return [folder / name for name in names if name.endswith(".npz") and (folder / name).is_file()]


def _confusion(folders: Mapping[str, Path]) -> Strips:
    """Mean probability of each noise level (columns) for each true one (rows)."""
    return [
        (cell, archive.read("confusion")[None, ..., None])
        for cell, folder in folders.items()
        for archive in map(Archive, _answers(folder, "diagnose"))
        if "confusion" in archive.names
    ]


def _alignment(folders: Mapping[str, Path]) -> Strips:
    """Test images, and gradients at the time of (a) Fig. 3: from least to most, and with all contrast, as in Fig. 4."""
    found: Strips = []
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "alignment")):
            images, gradients, times = (archive.read(name) for name in ("images", "gradients", "times"))
            at = gradients[np.abs(times - TIME).argmin()]
            found = found or [("test images", images / max(1, images.max()))]
            found += [(cell, _stretched(at, 0, 100)), (f"{cell}, contrast", _stretched(at, 1, 99))]
    return found


def _stretched(pictures: np.ndarray, low: float, high: float) -> np.ndarray:
    """Each picture with its percentiles ``low`` and ``high`` over all channels at 0 and 1."""
    bottom, top = np.percentile(pictures, (low, high), axis=(1, 2, 3), keepdims=True)
    return np.clip((pictures - bottom) / np.where(top > bottom, top - bottom, 1), 0, 1)


def _gradient_fields(folders: Mapping[str, Path]) -> Fields | None:
    """Gradients of each cell's classifier and the true ones, over the plane, as in (d) Fig. 3."""
    return gradient_fields({cell: path for cell, folder in folders.items() for path in _answers(folder, "gradients")})


def _steps(folders: Mapping[str, Path]) -> Strips:
    """Noisy and denoised images on the way to the first sample of each cell and scale, from left to right."""
    found: Strips = []
    for cell, folder in folders.items():
        for path in _answers(folder, "steps"):
            archive = Archive(path)
            for name in (name for name in ("noisy", "denoised") if name in archive.names):
                seen = archive.read(name)[:, 0]
                label = f"{cell}{path.stem.removeprefix('steps')}, {name}"
                found.append((label, _stretched(seen, 0, 100) if name == "noisy" else (seen + 1) / 2))
    return found


def _steps_by_class(folders: Mapping[str, Path]) -> Strips:
    """Mean probability of the class asked for, by class (rows) at each step of sampling (columns)."""
    found: Strips = []
    for cell, folder in folders.items():
        for path in _answers(folder, "steps"):
            archive = Archive(path)
            labels = archive.read("labels")
            if "probabilities" in archive.names and labels.min() >= 0:
                asked = archive.read("probabilities")[:, np.arange(len(labels)), labels]  # (L, N)
                means = np.stack([asked[:, labels == k].mean(1) for k in np.unique(labels)])
                found.append((f"{cell}{path.stem.removeprefix('steps')}", means[None, ..., None]))
    return found


def _counterfactuals(folders: Mapping[str, Path]) -> Strips:
    """Test images, noised, changed towards another class, and the difference: no change is grey."""
    found: Strips = []
    for cell, folder in folders.items():
        for path in _answers(folder, "counterfactual"):
            archive = Archive(path)
            original, changed = (archive.read(name)[:COLUMNS] for name in ("original", "changed"))
            top = max(1, original.max())
            change = (changed.astype(float) - original) / top
            label = f"{cell}{path.stem.removeprefix('counterfactual')}"
            found += [
                (f"{label}, original", original / top),
                ("noisy", (archive.read("noisy")[:COLUMNS] + 1) / 2),
                ("changed", changed / top),
                ("difference", (change + 1) / 2),
            ]
    return found


def _denoised(folders: Mapping[str, Path]) -> Strips:
    """Test images, each denoised from rising noise by each cell, and last the mean of the training images."""
    found: Strips = []
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "curves")):
            images, mean, denoised = (archive.read(name) for name in ("images", "mean", "denoised"))
            top = max(1, images.max())
            found += [
                (cell, np.concatenate([images[[i]] / top, (denoised[:, i] + 1) / 2, mean[None] / top]))
                for i in range(min(2, len(images)))
            ]
    return found


def _log_error_ratio(folders: Mapping[str, Path]) -> Curves:
    """Log of each cell's mean error of predicted noise over that of the first cell, by time."""
    errors: dict[str, dict[float, float]] = {}
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "curves")):
            errors[cell] = dict(zip(archive.read("times").tolist(), archive.read("errors").mean(1), strict=True))
    first = next(iter(errors.values()), {})
    return {cell: {t: float(np.log(e / first[t])) for t, e in of.items()} for cell, of in errors.items()}


def _log_levels(folders: Mapping[str, Path]) -> Curves:
    """Mean log-probability of each noise level less the largest, for images of known level, by share of all levels."""
    found: dict[str, dict[float, float]] = {}
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "curves")):
            if "log_levels" in archive.names:
                values = archive.read("log_levels")
                places = np.linspace(0, 1, values.shape[1]).tolist()
                for t, of in zip(archive.read("true"), values.tolist(), strict=True):
                    found[f"{cell}, t = {t:g}"] = dict(zip(places, of, strict=True))
    return found


PICTURES: dict[str, Callable[[Mapping[str, Path]], Strips | Curves | Fields | None]] = {
    "samples": _samples,
    "confusion": _confusion,
    "alignment": _alignment,
    "gradient-fields": _gradient_fields,
    "steps": _steps,
    "steps-by-class": _steps_by_class,
    "counterfactuals": _counterfactuals,
    "denoised": _denoised,
    "log-error-ratio": _log_error_ratio,
    "log-levels": _log_levels,
}
"""Pictures by name: functions of the folders of the cells' first seeds, by cell."""
