"""Pictures of what cells answered: samples, gradients, steps, counterfactuals, denoised images, noise levels.

Each is a function of the folders of the cells' first seeds, by cell; without answers its result is empty.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.results.drawings import SHARE, SIGMA, Curves, Strip
from benchmark.results.per_class import class_names
from benchmark.results.vector_fields import Fields, gradient_fields
from benchmark.system.archive import Archive
from benchmark.system.files import read_manifest

COLUMNS = 10
"""Images of a row."""
TIMES = (0.3, 0.35)
"""Times of the gradients that are shown, as in (a) on ImageNet and CIFAR-10."""


def _samples(folders: Mapping[str, Path]) -> list[Strip]:
    """First samples of each cell and scale: in one column, the same noise."""
    found = []
    for cell, folder in folders.items():
        for path in _answers(folder, "sample"):
            images = Archive(path).read("images")[:COLUMNS]
            if images.shape[1:3] != (1, 1):
                found.append(Strip(f"{cell}{path.stem.removeprefix('samples')}", images / max(1, images.max())))
    return found


def _answers(folder: Path, kind: str) -> list[Path]:
    """Arrays of the finished stages of a kind, by rising guidance scale; a failed one leaves other files behind."""
    manifests = [path for path in (folder / "stages").glob(f"{kind}*.json") if path.stem.partition("@")[0] == kind]
    manifests.sort(key=lambda path: float(path.stem.partition("@")[2] or -1))
    names = [name for path in manifests for name in (read_manifest(path) or {}).get("outputs", {})]
    return [folder / name for name in names if name.endswith(".npz") and (folder / name).is_file()]


def _confusion(folders: Mapping[str, Path]) -> list[Strip]:
    """Mean probability of each noise level (columns) for each true one (rows)."""
    return [
        Strip(cell, archive.read("confusion")[None, ..., None])
        for cell, folder in folders.items()
        for archive in map(Archive, _answers(folder, "diagnose"))
        if "confusion" in archive.names
    ]


def _alignment(folders: Mapping[str, Path]) -> list[Strip]:
    """Test images, and gradients at the times of (a) Figs. 2 and 3: from least to most, and as in Fig. 4."""
    found: list[Strip] = []
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "alignment")):
            images, gradients, times = (archive.read(name) for name in ("images", "gradients", "times"))
            found = found or [Strip("test images", images / max(1, images.max()))]
            for row in dict.fromkeys(np.abs(times - time).argmin() for time in TIMES):
                label = f"{cell}, t {times[row]:.2g}, sigma {archive.read('sigmas')[row]:.3g}"
                at = gradients[row]
                found += [Strip(label, _stretched(at, 0, 100)), Strip("the same, contrast", _stretched(at, 1, 99))]
    return found


def _stretched(pictures: np.ndarray, low: float, high: float) -> np.ndarray:
    """Each picture with its percentiles ``low`` and ``high`` over all channels at 0 and 1."""
    bottom, top = np.percentile(pictures, (low, high), axis=(1, 2, 3), keepdims=True)
    return np.clip((pictures - bottom) / np.where(top > bottom, top - bottom, 1), 0, 1)


def _gradient_fields(folders: Mapping[str, Path]) -> Fields | None:
    """Gradients of each cell's classifier and the true ones, over the plane, as in (d) Fig. 3."""
    return gradient_fields({cell: path for cell, folder in folders.items() for path in _answers(folder, "gradients")})


def _steps(folders: Mapping[str, Path]) -> list[Strip]:
    """Noisy and denoised images on the way to the first sample of each cell and scale, from left to right."""
    found: list[Strip] = []
    for cell, folder in folders.items():
        for path in _answers(folder, "steps"):
            archive = Archive(path)
            for name in (name for name in ("noisy", "denoised") if name in archive.names):
                seen = archive.read(name)[:, 0]
                label = f"{cell}{path.stem.removeprefix('steps')}, {name}"
                found.append(Strip(label, _stretched(seen, 0, 100) if name == "noisy" else (seen + 1) / 2))
    return found


def _steps_by_class(folders: Mapping[str, Path]) -> list[Strip]:
    """Mean probability of the class asked for, by class (rows) at each step of sampling (columns)."""
    found: list[Strip] = []
    for cell, folder in folders.items():
        for path in _answers(folder, "steps"):
            archive = Archive(path)
            labels = archive.read("labels")
            if "probabilities" in archive.names and labels.min() >= 0:
                asked = archive.read("probabilities")[:, np.arange(len(labels)), labels]  # (L, N)
                means = np.stack([asked[:, labels == k].mean(1) for k in np.unique(labels)])
                found.append(Strip(f"{cell}{path.stem.removeprefix('steps')}", means[None, ..., None]))
    return found


def _counterfactuals(folders: Mapping[str, Path]) -> list[Strip]:
    """Test images, noised, changed towards another class, and the difference: no change is grey.

    Below an original stands its class, below a changed image the class asked for, with a tick where the reference sees
    it, or else with the class that the reference sees.
    """
    found: list[Strip] = []
    for cell, folder in folders.items():
        for path in _answers(folder, "counterfactual"):
            archive = Archive(path)
            original, changed = (archive.read(name)[:COLUMNS] for name in ("original", "changed"))
            top = max(1, original.max())
            change = (changed.astype(float) - original) / top
            label = f"{cell}{path.stem.removeprefix('counterfactual')}"
            names = class_names(folder)
            told = (archive.read(name)[:COLUMNS].tolist() for name in ("labels", "asked", "judged"))
            own, asked, seen = ([names.get(k, str(k)) for k in of] for of in told)
            reached = [f"{to} ✓" if to == at else f"{to}: {at}" for to, at in zip(asked, seen, strict=True)]
            found += [
                Strip(f"{label}, original", original / top, own),
                Strip("noisy", (archive.read("noisy")[:COLUMNS] + 1) / 2),
                Strip("changed", changed / top, reached),
                Strip("difference", (change + 1) / 2),
            ]
    return found


def _denoised(folders: Mapping[str, Path]) -> list[Strip]:
    """Test images, each denoised from rising noise by each cell, and last the mean of the training images."""
    found: list[Strip] = []
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "curves")):
            images, mean, denoised = (archive.read(name) for name in ("images", "mean", "denoised"))
            top = max(1, images.max())
            found += [
                Strip(cell, np.concatenate([images[[i]] / top, (denoised[:, i] + 1) / 2, mean[None] / top]))
                for i in range(min(2, len(images)))
            ]
    return found


def _log_error_ratio(folders: Mapping[str, Path]) -> Curves:
    """Log of each cell's mean error of predicted noise over the first cell's, interpolated, at the same noise level."""
    errors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for cell, folder in folders.items():
        for archive in map(Archive, _answers(folder, "curves")):
            errors[cell] = np.log(archive.read("sigmas")), np.log(archive.read("errors").mean(1))
    levels, first = next(iter(errors.values()), (np.zeros(1), np.zeros(1)))
    found: dict[str, dict[float, float]] = {}
    for cell, (own, error) in errors.items():
        within = (own > levels[0] - 1e-6) & (own < levels[-1] + 1e-6)
        ratio = error - np.interp(own, levels, first)
        found[cell] = dict(zip(np.exp(own[within]).tolist(), ratio[within].tolist(), strict=True))
    return found


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


class Picture(NamedTuple):
    """A picture that an experiment can name.

    Attributes:
        kind: Stage whose answers it shows.
        drawn: What it shows, of the folders of the cells' first seeds by cell: rows of images, lines, or fields.
        title: What the page of a run says below it; empty for pictures that the page shows in another way.
        across: Name of the abscissa of lines.
    """

    kind: str
    drawn: Callable[[Mapping[str, Path]], list[Strip] | Curves | Fields | None]
    title: str = ""
    across: str = SHARE


PICTURES = {
    "samples": Picture("sample", _samples),
    "confusion": Picture("diagnose", _confusion),
    "alignment": Picture("alignment", _alignment, "Gradients of classifiers at test images with noise"),
    "gradient-fields": Picture("gradients", _gradient_fields, "Gradients of classifiers in the plane"),
    "steps": Picture("steps", _steps, "From noise to a sample"),
    "steps-by-class": Picture(
        "steps",
        _steps_by_class,
        "Probability of the class asked for, of each class (rows) from noise (left) to image; black 0, white 1",
    ),
    "counterfactuals": Picture(
        "counterfactual",
        _counterfactuals,
        "Test images changed towards another class; below, the class asked for, ✓ where it is seen, else what is seen",
    ),
    "denoised": Picture("curves", _denoised, "Test images, denoised from rising noise, and the mean image"),
    "log-error-ratio": Picture(
        "curves", _log_error_ratio, "Log of the error of predicted noise over the first one's", SIGMA
    ),
    "log-levels": Picture("curves", _log_levels, "Log-probability of noise levels, less the largest"),
}
"""Pictures by name."""
