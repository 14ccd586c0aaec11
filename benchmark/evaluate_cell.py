"""Records of a cell, from what its method answered: every number of its rows, or the reason why there is none."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmark.answer_records import ANSWERS
from benchmark.files import write_json
from benchmark.metrics import classification, fidelity
from benchmark.metrics.arrays import Estimate
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
from benchmark.record import Record
from benchmark.recorder import Recorder as _Recorder
from benchmark.stages import read_manifest
from benchmark.suite import Protocol
from benchmark.table_rows import COSTS, GENERATION

LEAST_PER_CLASS = 100
"""Samples of a class below which a Frechet distance within the class says more of the count than of the samples."""


def write_records(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Compute the records of a job's cell and write ``record.json``."""
    records = [record for part in PARTS for record in part(job, protocol)]
    write_json(job.folder / "record.json", [asdict(record) for record in records])
    return {"outputs": ["record.json"]}


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


PARTS = (*ANSWERS, _generation, _costs)
