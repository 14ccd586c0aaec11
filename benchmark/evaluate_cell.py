"""Records of a cell, from what its method answered: every number of its rows, or the reason why there is none."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmark.files import write_json
from benchmark.metrics import classification, fidelity
from benchmark.metrics.arrays import Estimate, cosines, mean_estimate
from benchmark.metrics.frechet import (
    Statistics,
    class_statistics,
    frechet_distance,
    frechet_stderr,
    intra_class_frechet,
)
from benchmark.metrics.neighbours import nearest_neighbour_ratio, precision_recall
from benchmark.outputs import load_arrays
from benchmark.plan import Job, scale_tag
from benchmark.record import Record, measured, not_applicable
from benchmark.stages import Stage, read_manifest
from benchmark.suite import Protocol
from benchmark.table_rows import CLASSIFICATION, COSTS, DIAGNOSTICS, GENERATION

LEAST_PER_CLASS = 100
"""Samples of a class below which a Frechet distance within the class says more of the count than of the samples."""


def write_records(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Compute the records of a job's cell and write ``record.json``."""
    records = [record for part in PARTS for record in part(job, protocol)]
    write_json(job.folder / "record.json", [asdict(record) for record in records])
    return {"outputs": ["record.json"]}


class _Recorder:
    """Makes records of one cell and stage.

    Args:
        job: The cell's evaluation.
        stage: Name of the stage that answered.
        protocol: What all its numbers were measured by.
    """

    def __init__(self, job: Job, stage: str, protocol: dict[str, Any]) -> None:
        self.job = job
        trained = read_manifest(Stage("train", "").manifest(job.trained)) if job.trained else None
        own = trained if stage == "train" else read_manifest(Stage(stage, "").manifest(job.folder))
        self.manifest = own or {}
        about = {key: trained.get(key) for key in ("n_labeled", "task")} if trained else {}
        self.protocol = {key: value for key, value in about.items() if value is not None} | protocol

    def __call__(self, metric: str, estimate: Estimate, **protocol: Any) -> Record:
        return measured(
            self.job.cell.name, self.job.method, self.job.seed, metric, estimate.value,
            n=estimate.n, stderr=estimate.stderr, protocol={**self.protocol, **protocol},
            seconds=self.manifest.get("seconds"), peak_memory_bytes=self.manifest.get("peak_memory_bytes"),
            key=self.manifest.get("key", ""),
        )  # fmt: skip

    def absent(self, metrics: tuple[str, ...], reason: str) -> Iterator[Record]:
        """Records of metrics that cannot be asked of this cell."""
        for metric in metrics:
            yield not_applicable(
                self.job.cell.name, self.job.method, self.job.seed, metric, reason, protocol=self.protocol
            )


def _classification(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = _Recorder(job, "classify", {})
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
    record = _Recorder(job, "likelihood", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(("nll",), reason)
        return
    bits = load_arrays(job.folder / "log_prob.npz")["bits"]
    yield record("nll", mean_estimate(bits), kind=record.manifest["kind"], nfe=record.manifest["nfe"])


def _denoising(job: Job, protocol: Protocol) -> Iterator[Record]:
    names = [f"mse/denoise/t={t:g}" for t in protocol.denoise_times]
    record = _Recorder(job, "denoise", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(tuple(names), reason)
        return
    found = load_arrays(job.folder / "denoise.npz")
    for name, errors, sigma in zip(names, found["errors"], found["sigmas"], strict=True):
        yield record(name, mean_estimate(errors), sigma=float(f"{sigma:.4g}"))


def _diagnostics(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = _Recorder(job, "diagnose", {})
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
    record = _Recorder(job, "gradients", {})
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


def _generation(job: Job, protocol: Protocol) -> Iterator[Record]:
    for scale in job.cell.guidance_scales or [None]:
        tag = scale_tag(scale)
        record = _Recorder(job, f"sample{tag}", {} if scale is None else {"guidance_scale": scale})
        if "reason" in record.manifest:
            yield from record.absent(GENERATION, record.manifest["reason"])
            continue
        record.protocol |= {k: record.manifest[k] for k in ("sampler", "steps", "nfe") if k in record.manifest}
        yield from _fidelity(job, protocol, record, tag)


def _fidelity(job: Job, protocol: Protocol, record: _Recorder, tag: str) -> Iterator[Record]:
    drawn = load_arrays(job.folder / f"samples{tag}.npz")
    looked = load_arrays(job.folder / f"features{tag}.npz")
    real = load_arrays(job.reference / "real.npz")
    features, probabilities, labels = looked["features"], looked["probabilities"], drawn["labels"]
    task = np.array(record.manifest.get("task_classes", range(probabilities.shape[1])))
    against = "train" if protocol.real_images is None else f"{len(real['train_features'])} of train"
    record.protocol |= {"feature_network": f"{job.reference.parent.name}, {job.reference.name}", "against": against}
    train = Statistics.of(real["train_features"])
    own = Statistics.of(features)
    n = len(features)
    asked = (labels >= 0).all()
    if asked:
        yield record("accuracy/generated", classification.accuracy(_of_task(probabilities, task), labels))
    else:
        yield from record.absent(("accuracy/generated",), "no class is asked for")
    yield record("fd", Estimate(frechet_distance(train, own), frechet_stderr(train, features, own), n))
    if asked and np.bincount(labels, minlength=task.max() + 1).min() >= LEAST_PER_CLASS:
        intra = intra_class_frechet(
            class_statistics(real["train_features"], task[real["train_labels"]]), class_statistics(features, labels)
        )
        yield record("fd/intra", Estimate(intra.mean, None, n))
    else:
        reason = f"fewer than {LEAST_PER_CLASS} samples a class" if asked else "no class is asked for"
        yield from record.absent(("fd/intra",), reason)
    score = fidelity.inception_score(probabilities, splits=1)
    yield record("is", Estimate(score.mean, score.stderr, n), splits=1)
    found = precision_recall(real["train_features"], features, k=protocol.neighbours)
    yield record("precision", found.precision, k=protocol.neighbours)
    yield record("recall", found.recall, k=protocol.neighbours)
    ratio = nearest_neighbour_ratio(drawn["images"], real["train_images"], real["test_images"])
    yield record("nn_ratio", ratio)


def _of_task(probabilities: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Probabilities of the task's classes ``(N, K)`` from those of the data set's, each in class ``task[k]``."""
    summed = np.zeros((len(probabilities), task.max() + 1))
    np.add.at(summed.T, task, probabilities.T)
    return summed


def _costs(job: Job, protocol: Protocol) -> Iterator[Record]:
    train = _Recorder(job, "train", {})
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
        record = _Recorder(job, f"sample{scale_tag(scale)}", {} if scale is None else {"guidance_scale": scale})
        if "reason" in record.manifest:
            yield from record.absent(("cpu_seconds/sample", "throughput/sample"), record.manifest["reason"])
            continue
        n = record.manifest["samples"]
        yield record("cpu_seconds/sample", Estimate(record.manifest["cpu_seconds"], None, n))
        yield record("throughput/sample", Estimate(n / record.manifest["seconds"], None, n))


PARTS = (_classification, _likelihood, _denoising, _diagnostics, _gradients, _generation, _costs)
