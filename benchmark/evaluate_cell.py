"""Records of a cell, from what its method answered: every number of its rows, or the reason why there is none."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmark.files import write_json
from benchmark.generation_records import generation_records
from benchmark.metrics import classification
from benchmark.metrics.arrays import Estimate, cosines, mean_estimate
from benchmark.outputs import load_arrays
from benchmark.per_class import FILE as PER_CLASS
from benchmark.plan import Job, scale_tag
from benchmark.record import Record
from benchmark.recorder import Recorder
from benchmark.stages import read_manifest
from benchmark.suite import Protocol
from benchmark.table_rows import CLASSIFICATION, COSTS, DIAGNOSTICS


def write_records(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Compute the records of a job's cell and write ``record.json``."""
    records = [record for part in PARTS for record in part(job, protocol)]
    write_json(job.folder / "record.json", [asdict(record) for record in records])
    return {"outputs": ["record.json", PER_CLASS]}


def _classification(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, "classify", {})
    if job.cell.config is None:
        yield from record.absent(CLASSIFICATION, "images, not a model")
        return
    if "reason" in record.manifest:
        yield from record.absent(CLASSIFICATION, record.manifest["reason"])
        return
    found = load_arrays(job.folder / "logits.npz")
    y = found["y"]
    clean = _softmax(found["clean"])
    yield record("accuracy/clean", classification.accuracy(clean, y))
    if clean.shape[1] == 2:
        yield record("f1", classification.positive_f1(clean, y))
    yield record("ece", classification.calibration_error(clean, y))
    if "noisy" not in found:
        yield from record.absent(("accuracy/noisy", "accuracy/levels", "accuracy/middle"), "reads clean images only")
        return
    right = found["noisy"].argmax(2) == y
    # An image's draws are not independent: the error is over images.
    noisy = mean_estimate(right.mean(0))
    yield record("accuracy/noisy", noisy._replace(n=right.size), draws=protocol.noisy_draws, times="uniform")
    right = found["levels"].argmax(2) == y
    curve = classification.accuracy_over_levels(right)
    yield record("accuracy/levels", curve.mean, levels=protocol.levels)
    low, high = protocol.middle
    middle = (found["level_sigmas"] >= low) & (found["level_sigmas"] <= high)
    if middle.any():
        yield record("accuracy/middle", mean_estimate(right[middle].mean(0)), sigma=f"{low:g} to {high:g}")
    else:
        reason = f"no level of sigma {low:g} to {high:g} among the {protocol.levels}"
        yield from record.absent(("accuracy/middle",), reason)
    for t, sigma, estimate in zip(found["level_times"], found["level_sigmas"], curve.per_level, strict=True):
        yield record(f"accuracy/t={t:.3f}", estimate, sigma=float(f"{sigma:.4g}"))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _likelihood(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, "likelihood", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(("nll",), reason)
        return
    bits = load_arrays(job.folder / "log_prob.npz")["bits"]
    yield record("nll", mean_estimate(bits), kind=record.manifest["kind"], nfe=record.manifest["nfe"])


def _denoising(job: Job, protocol: Protocol) -> Iterator[Record]:
    names = [f"mse/denoise/t={t:g}" for t in protocol.denoise_times]
    record = Recorder(job, "denoise", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(tuple(names), reason)
        return
    found = load_arrays(job.folder / "denoise.npz")
    for name, errors, sigma in zip(names, found["errors"], found["sigmas"], strict=True):
        yield record(name, mean_estimate(errors), sigma=float(f"{sigma:.4g}"))


def _diagnostics(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, "diagnose", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(DIAGNOSTICS, reason)
        return
    found = load_arrays(job.folder / "diagnostics.npz")
    # How well levels can be told apart depends on where they lie: other levels, another task.
    record.protocol["process"] = record.manifest["process"]
    yield record("level_ce", mean_estimate(found["level_ce"]))
    yield record("telescoping", _telescoping(found["telescoping"]))


def _telescoping(steps: np.ndarray) -> Estimate:
    """``sum_t log mean_x exp(F_t - F_{t+1})`` over images of level ``t + 1``, in nats; 0 for a normalised density.

    Args:
        steps: ``F_t - F_{t+1}``, ``(N, T + 1)``.
    """
    steps = steps.astype(np.float64)
    top = steps.max(0)
    weights = np.exp(steps - top)
    means = weights.mean(0)
    variances = weights.var(0, ddof=1) / len(weights) / means**2
    return Estimate(float((top + np.log(means)).sum()), float(np.sqrt(variances.sum())), len(steps))


def _gradients(job: Job, protocol: Protocol) -> Iterator[Record]:
    """Nothing of cells that have no exact score: few data sets have one."""
    record = Recorder(job, "gradients", {})
    if job.cell.config is None or "reason" in record.manifest:
        return
    found = load_arrays(job.folder / "gradients.npz")
    for estimate, truth, score, sigma in zip(
        *(found[k] for k in ("estimate", "truth", "score", "sigmas")), strict=True
    ):
        at = {"sigma": float(f"{sigma:.4g}"), "points": record.manifest.get("points")}
        yield record("gradient/cosine", mean_estimate(cosines(estimate, truth)), **at)
        # (d) Table 6 gives the errors without and with the one factor that makes them least.
        power = float(np.square(estimate).sum())
        best = float((estimate * truth).sum()) / power if power else 1.0
        for scaling, factor in (("none", 1.0), ("best", best)):
            scaled = factor * estimate
            yield record("gradient/mse", mean_estimate(np.square(scaled - truth).sum(1)), scaling=scaling, **at)
            agreement = cosines(score + scaled, score + truth)
            yield record("score/cosine", mean_estimate(agreement), scaling=scaling, **at)


def _costs(job: Job, protocol: Protocol) -> Iterator[Record]:
    train = Recorder(job, "train", {})
    total = 0.0
    if job.cell.config is None:
        yield from train.absent(COSTS, "images, not a model")
    else:
        total = train.manifest["cpu_seconds"]
        yield train("cpu_seconds/train", Estimate(total, None, 1))
        images = train.manifest["steps"] * train.manifest["images_per_step"]
        if images:
            yield train("throughput/train", Estimate(images / train.manifest["seconds"], None, images))
        else:
            reason = "published weights, not trained" if train.manifest.get("published") else "fitted in closed form"
            yield from train.absent(("throughput/train",), reason)
        yield from _sampling_costs(job)
    for stage in job.stages:
        manifest = read_manifest(stage.manifest(job.folder)) or {}
        total += manifest.get("cpu_seconds", 0.0)
    yield train("cpu_seconds/total", Estimate(total, None, 1))


def _sampling_costs(job: Job) -> Iterator[Record]:
    for scale in job.cell.guidance_scales or [None]:
        record = Recorder(job, f"sample{scale_tag(scale)}", {} if scale is None else {"guidance_scale": scale})
        if "reason" in record.manifest:
            yield from record.absent(("cpu_seconds/sample", "throughput/sample"), record.manifest["reason"])
            continue
        n = record.manifest["samples"]
        yield record("cpu_seconds/sample", Estimate(record.manifest["cpu_seconds"], None, n))
        yield record("throughput/sample", Estimate(n / record.manifest["seconds"], None, n))


PARTS = (_classification, _likelihood, _denoising, _diagnostics, _gradients, generation_records, _costs)
