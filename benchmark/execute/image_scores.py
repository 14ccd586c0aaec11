"""Scores of single test images, from the arrays of a cell's answers: terms of metrics that are means over images."""

from collections.abc import Iterator

import numpy as np

from benchmark.metrics import classification
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays
from benchmark.system.files import read_manifest

DIAGNOSTICS = {
    "nll/ode": "ode_bits",
    "nll/lattice": "lattice_bits",
    "level_ce": "level_ce",
    "accuracy/level": "level_right",
    "mse/level": "level_mse",
}
"""Metrics of ``diagnostics.npz`` and their arrays."""

NOISE = (("denoise", "denoise.npz", "mse/denoise"), ("calibrate", "calibration.npz", "mse/calibration"))
"""Stages that predict noise, with their files and metrics."""


def image_scores(job: Job, protocol: Protocol) -> dict[str, np.ndarray]:
    """Scores ``(N,)`` by metric of an evaluation that is finished; a metric's record is their mean."""
    return {metric: scores for part in (_classification, _density) for metric, scores in part(job, protocol)}


def _arrays(job: Job, kind: str, file: str) -> dict[str, np.ndarray]:
    """Arrays of an answer; empty if the cell has none."""
    manifest = read_manifest(Stage(kind).manifest(job.folder)) or {}
    return load_arrays(job.folder / file) if file in manifest.get("outputs", ()) else {}


def _classification(job: Job, protocol: Protocol) -> Iterator[tuple[str, np.ndarray]]:
    found = _arrays(job, "classify", "logits.npz")
    if not found:
        return
    y = found["y"]
    yield "accuracy/clean", classification.hits(found["clean"], y)
    yield "label_nll", classification.label_nll(found["clean"], y)
    for name in ("noisy", "masked_x", "masked_denoised"):
        if name in found:
            yield f"accuracy/{name}", np.stack([classification.hits(draw, y) for draw in found[name]]).mean(0)
    if "levels" in found:
        levels = np.stack([classification.hits(level, y) for level in found["levels"]])
        yield "accuracy/levels", levels.mean(0)
        low, high = protocol.middle
        middle = (found["level_sigmas"] >= low) & (found["level_sigmas"] <= high)
        if middle.any():
            yield "accuracy/middle", levels[middle].mean(0)


def _density(job: Job, protocol: Protocol) -> Iterator[tuple[str, np.ndarray]]:
    likelihood = _arrays(job, "likelihood", "log_prob.npz")
    if likelihood:
        yield "nll", likelihood["bits"]
        yield "nfe/nll", likelihood["nfe"]
    for kind, file, metric in NOISE:
        if found := _arrays(job, kind, file):
            for t, errors in zip(protocol.denoise_times, found["errors"], strict=True):
                yield f"{metric}/t={t:g}", errors
    if found := _arrays(job, "alignment", "alignment.npz"):
        for t, cosines in zip(found["times"], found["noisy"], strict=True):
            yield f"gradient/alignment/t={t:g}", cosines
    diagnostics = _arrays(job, "diagnose", "diagnostics.npz")
    for metric, name in DIAGNOSTICS.items():
        if name in diagnostics:
            yield metric, diagnostics[name]
