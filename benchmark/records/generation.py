"""Records of a cell's samples: distances to real images by each feature network, and accuracy of the classes."""

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.metrics import classification
from benchmark.metrics.arrays import Estimate, mean_estimate, share
from benchmark.metrics.fidelity import inception_score, kernel_distance, kernel_mean, prd
from benchmark.metrics.frechet import Statistics, frechet_estimate, intra_class_frechet
from benchmark.metrics.neighbours import distance_ratio, nearest_distances, neighbour_radii, precision_recall
from benchmark.records.recorder import Recorder
from benchmark.results.definitions import fidelity_names, generation_metrics
from benchmark.results.per_class import FILE
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import REFERENCE, Protocol
from benchmark.suite.stages import Stage, scale_tag
from benchmark.system.arrays import StoredRows, load_arrays
from benchmark.system.files import read_manifest, write_json

LEAST_PER_CLASS = 100
"""Fewest samples of a class for a Frechet distance within it, whose bias would dominate below."""
IS_SPLIT = 5000
"""Samples of a split of the Inception score, as in papers; fewer samples are one split."""
CLUSTERS = 20
"""Clusters of precision and recall for distributions; also their fewest samples."""


@dataclass(frozen=True)
class PerClass:
    """A number of one class: ``metric`` of the samples of ``label``, named ``class_name``."""

    cell: str
    seed: int
    guidance_scale: float | None
    metric: str
    feature_network: str
    label: int
    class_name: str
    value: float
    stderr: float | None
    n: int


class Real:
    """The real images of a suite and a feature network's outputs for them; each part is read or computed once.

    Args:
        folder: Folder of the reference's cell.
        network: Name of the network.
        images: Arrays of ``features.real_images``, without the test images.
    """

    def __init__(self, folder: Path, network: str, images: dict[str, np.ndarray]) -> None:
        self.folder, self.network, self.images = folder, network, images
        self._radii: dict[int, np.ndarray] = {}

    @functools.cached_property
    def seen(self) -> dict[str, np.ndarray]:
        """Arrays of ``features.real_features``."""
        return load_arrays(self.folder / f"real+{self.network}.npz")

    @functools.cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of the outputs for training images, by name."""
        names = [name.removesuffix("_mean") for name in self.seen if name.endswith("_mean")]
        n = int(self.seen["count"])
        return {name: Statistics(n, self.seen[f"{name}_mean"], self.seen[f"{name}_scatter"]) for name in names}

    @property
    def kept(self) -> str:
        """Description of the images that the outputs are of: the training part, or how many of it."""
        return self._part(len(self.images["train_labels"]))

    @property
    def counted(self) -> str:
        """Description of the images that the statistics are of."""
        return self._part(int(self.seen["count"]))

    def _part(self, n: int) -> str:
        return "train" if n == self.images["train_count"] else f"{n} of train"

    @functools.cached_property
    def kernel_mean(self) -> float:
        """Kernel mean of the training images' features."""
        return kernel_mean(self.seen["features"], device=device())

    @functools.cached_property
    def near(self) -> np.ndarray:
        """Features of the real images of precision and recall."""
        return self.seen["features"][self.images["neighbours"]]

    def radii(self, k: int) -> np.ndarray:
        """Distance of each of those images to its ``k``-th neighbour."""
        if k not in self._radii:
            self._radii[k] = neighbour_radii(self.near, k, device=device())
        return self._radii[k]


@functools.lru_cache(maxsize=1)
def _images(folder: Path, key: str) -> dict[str, np.ndarray]:
    return load_arrays(folder / "real.npz", "train_images", "train_labels", "train_count", "test_labels", "neighbours")


@functools.lru_cache(maxsize=2)
def _held_out_distance(folder: Path, key: str) -> Estimate:
    test, train = StoredRows(folder / "real.npz", "test_images"), _images(folder, key)["train_images"]
    return mean_estimate(nearest_distances(test, train, device=device()))


@functools.lru_cache(maxsize=4)
def _real(folder: Path, network: str, key: str) -> Real:
    """Real images for a network, read once by a process for many cells; ``key`` identifies the files."""
    return Real(folder, network, _images(folder, _key(folder)))


def _key(folder: Path) -> str:
    """Key of the real images in a reference's folder."""
    return (read_manifest(Stage("real").manifest(folder)) or {}).get("key", "")


def generation_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    """Records of a cell's samples at each guidance scale; numbers of each class go to ``per_class.json``."""
    per_class: list[PerClass] = []
    for scale in job.cell.guidance_scales or [None]:
        tag = scale_tag(scale)
        record = Recorder(job, Stage("sample", scale=scale))
        if "reason" in record.manifest:
            yield from record.absent(generation_metrics(protocol.features), record.manifest["reason"])
            continue
        record.protocol |= {k: record.manifest[k] for k in ("sampler", "steps", "nfe") if k in record.manifest}
        file = job.folder / f"samples{tag}.npz"
        labels, images = load_arrays(file, "labels")["labels"], StoredRows(file, "images")
        for network in protocol.features:
            stage = read_manifest(Stage("real", network=network).manifest(job.reference)) or {}
            real = _real(job.reference, network, stage["key"])
            seen = load_arrays(job.folder / f"features+{network}{tag}.npz")
            compared = _Compared(job, protocol, record, real, stage["network"], seen, labels)
            yield from compared.records()
            per_class += compared.per_class
        held_out = _held_out_distance(job.reference, _key(job.reference))
        near = mean_estimate(nearest_distances(images, real.images["train_images"], device=device()))
        among = {} if protocol.real_images is None else {"against": real.kept}
        yield record("nn_ratio", distance_ratio(near, held_out), **among)
    write_json(job.folder / FILE, [asdict(row) for row in per_class])


class _Compared:
    """Samples of one scale against real images, on one network's features.

    Args:
        job: The cell's evaluation.
        protocol: The suite's protocol.
        record: Makes records of the samples.
        real: The network's outputs for real images.
        name: The network's own name, for the protocol.
        seen: The network's outputs for the samples.
        labels: Requested classes, ``(N,)``; -1 for none.
    """

    def __init__(
        self, job: Job, protocol: Protocol, record: Recorder, real: Real, name: str, seen: dict[str, np.ndarray],
        labels: np.ndarray,
    ) -> None:  # fmt: skip
        self.job, self.protocol, self.record, self.real, self.seen = job, protocol, record, real, seen
        self.labels, self.asked = labels, bool((labels >= 0).all())
        self.judge = real.network == REFERENCE
        data_classes = range(int(real.images["train_labels"].max()) + 1)
        self.task = np.array(record.manifest.get("task_classes", data_classes))
        self.names = record.manifest["class_names"]
        if self.judge:
            name = f"{job.reference.parent.name}, {job.reference.name}"
        self.by: dict[str, Any] = {"feature_network": name, "against": real.kept}
        self.per_class: list[PerClass] = []

    def records(self) -> Iterator[Record]:
        names, features = fidelity_names(self.real.network), self.seen["features"]
        if self.judge:
            yield from self._of_asked_class()
        yield self._distance(names.frechet, "features", features)
        yield self._matched(names.matched, features)
        yield from self._within_classes(names.intra)
        if "spatial" in self.seen:
            yield self._distance("sfid", "spatial", self.seen["spatial"], layer="mixed_6d")
        mean = self.real.kernel_mean
        kernel = kernel_distance(self.real.seen["features"], features, device=device(), real_mean=mean)
        yield self._record(names.kernel, kernel, pairs="all")
        if "probabilities" in self.seen:
            splits = max(1, len(features) // IS_SPLIT)
            score = inception_score(self.seen["probabilities"], splits=splits)
            yield self._record("is", score, splits=splits)
        yield from self._manifolds(features)

    def _record(self, metric: str, estimate: Estimate, **protocol: Any) -> Record:
        return self.record(metric, estimate, **self.by | protocol)

    def _distance(self, metric: str, output: str, seen: np.ndarray, **protocol: Any) -> Record:
        """Frechet distance of the samples' outputs from the statistics of the training images."""
        estimate = frechet_estimate(self.real.statistics[output], seen)
        return self._record(metric, estimate, against=self.real.counted, **protocol)

    def _matched(self, metric: str, features: np.ndarray) -> Record:
        """Frechet distance of at most as many samples as there are test images, so that a row of those compares."""
        most = len(self.real.images["test_labels"])
        rows = np.random.default_rng([self.protocol.seed, 8]).permutation(len(features))[:most]
        return self._distance(metric, "features", features[np.sort(rows)])

    def _of_asked_class(self) -> Iterator[Record]:
        """Accuracy of the reference classifier on the requested classes."""
        if not self.asked:
            yield from self.record.absent(("accuracy/generated",), "no class is asked for", **self.by)
            return
        probabilities = of_task(self.seen["probabilities"], self.task)
        yield self._record("accuracy/generated", classification.accuracy(probabilities, self.labels))
        right = probabilities.argmax(1) == self.labels
        for label in np.unique(self.labels):
            self._keep("accuracy/generated", label, share(right[self.labels == label]))

    def _within_classes(self, metric: str) -> Iterator[Record]:
        if not self.asked:
            yield from self.record.absent((metric,), "no class is asked for", **self.by)
            return
        if np.bincount(self.labels, minlength=self.task.max() + 1).min() < LEAST_PER_CLASS:
            yield from self.record.absent((metric,), f"fewer than {LEAST_PER_CLASS} samples a class", **self.by)
            return
        real_labels = self.task[self.real.images["train_labels"]]
        if np.bincount(real_labels, minlength=self.task.max() + 1).min() < 2:
            yield from self.record.absent((metric,), "fewer than 2 real images of a class", **self.by)
            return
        found = intra_class_frechet(self.real.seen["features"], real_labels, self.seen["features"], self.labels)
        yield self._record(metric, found.mean)
        for label, estimate in found.per_class.items():
            self._keep(metric.removesuffix("/intra"), label, estimate)

    def _keep(self, metric: str, label: int, found: Estimate) -> None:
        scale = self.record.protocol.get("guidance_scale")
        cell, seed, network, name = self.job.cell.name, self.job.seed, self.by["feature_network"], self.names[label]
        self.per_class.append(PerClass(cell, seed, scale, metric, network, int(label), name, *found))

    def _manifolds(self, features: np.ndarray) -> Iterator[Record]:
        """Precision and recall, by nearest neighbours and by clusters."""
        k, near = self.protocol.neighbours, self.real.near
        among = {} if self.protocol.neighbour_images is None else {"real": len(near)}
        found = precision_recall(near, features, k=k, real_radii=self.real.radii(k), device=device())
        yield self._record("precision", found.precision, k=k, **among)
        yield self._record("recall", found.recall, k=k, **among)
        n = min(len(near), len(features))
        if n < CLUSTERS:
            reason = f"fewer than {CLUSTERS} samples, as many as there are clusters"
            yield from self.record.absent(("prd/precision", "prd/recall"), reason, **self.by)
            return
        rng = np.random.default_rng([self.protocol.seed, 7])
        parts = (x[np.sort(rng.permutation(len(x))[:n])] for x in (near, features))
        curve = prd(*parts, clusters=CLUSTERS)
        yield self._record("prd/precision", curve.precision, clusters=CLUSTERS)
        yield self._record("prd/recall", curve.recall, clusters=CLUSTERS)


def device() -> torch.device:
    """Device for distances between all pairs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of_task(probabilities: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Probabilities of the task's classes ``(N, K)``, summed over classes ``k`` of the data set by ``task[k]``."""
    summed = np.zeros((len(probabilities), task.max() + 1))
    np.add.at(summed.T, task, probabilities.T)
    return summed
