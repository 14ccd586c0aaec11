"""Features of real images, computed once for all cells, and of each cell's samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.answers.question import asked_images
from benchmark.metrics.features import ClassifierFeatures, FeatureNetwork, extract
from benchmark.metrics.frechet import Statistics
from benchmark.suite.protocol import REFERENCE, Protocol
from benchmark.system.arrays import StoredRows, load_arrays, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Method

LARGE = 64
"""Batch size of networks that enlarge images."""
BLOCK = 1024
"""Images read at once where statistics are of all of them."""


def real_images(data: ImageData, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Write ``real.npz``: the real images that samples are compared with, and those that methods are asked about.

    It holds ``train_images (N, H, W, C)``, ``train_labels (N,)``, the same of ``test``, the part that the protocol asks
    about, ``neighbours``, the rows of the training images that precision and recall use, and ``train_count``, the
    number of all training images.
    """
    arrays = {}
    real = data.some_images("train", protocol.real_images, [protocol.seed, 5])
    for part, (u, y) in (("train", real), ("test", asked_images(data, protocol))):
        arrays |= {f"{part}_images": u.permute(0, 2, 3, 1).numpy(), f"{part}_labels": y.numpy()}
    n = len(arrays["train_labels"])
    rows = np.random.default_rng([protocol.seed, 6]).permutation(n)[: protocol.neighbour_images]
    count = np.array(len(data.splits["train"]))
    save_arrays(folder / "real.npz", **arrays, neighbours=np.sort(rows), train_count=count)
    return {"outputs": ["real.npz"]}


def real_features(
    name: str, reference: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report
) -> dict[str, Any]:
    """Write ``real+<name>.npz``: a network's outputs for the training images of ``real.npz``.

    It holds ``features (N, D)`` and all other outputs but probabilities, each with ``<output>_mean`` and
    ``<output>_scatter`` in double, and ``count``, the number of images that these are of.

    Args:
        name: Name of the network; see ``Protocol.features``.
        reference: The suite's reference.
        data: Its data.
        protocol: The suite's protocol.
        folder: Folder of the reference's cell.
        report: Receives the number of images done.
    """
    images = StoredRows(folder / "real.npz", "train_images")
    arrays: dict[str, np.ndarray] = {}
    if name == REFERENCE:
        network: FeatureNetwork = ClassifierFeatures.fit(
            reference.classifier, data.grey.centre, name, images, protocol.batch, reference.device
        )
        arrays = {"centre": network.mean.cpu().numpy(), "scale": network.scale.cpu().numpy()}
    else:
        network = _published(name)
    found = extract(
        network, images, _batch(name, protocol.batch), reference.device,
        lambda done: report(f"real+{name}", done, len(images)),
    )  # fmt: skip
    kept = sorted(set(found) - {"probabilities"})
    if protocol.whole_statistics:
        statistics = whole_statistics(network, data, kept, _batch(name, protocol.batch), reference.device, report)
    else:
        statistics = {what: Statistics.of(found[what]) for what in kept}
    for what, of in statistics.items():
        arrays |= {what: found[what], f"{what}_mean": of.mean, f"{what}_scatter": of.scatter}
    arrays["count"] = np.array(statistics["features"].n)
    file = f"real+{name}.npz"
    save_arrays(folder / file, **arrays)
    return {"outputs": [file], "network": network.name}


def whole_statistics(
    network: FeatureNetwork, data: ImageData, names: list[str], batch: int, device: torch.device, report: Report
) -> dict[str, Statistics]:
    """Statistics of a network's outputs for all training images, by name; images are read block by block."""
    sums: dict[str, Statistics] = {}
    total, done = len(data.splits["train"]), 0
    for images in data.blocks("train", BLOCK):
        found = extract(network, images, batch, device)
        seen = {name: Statistics.of(found[name]) for name in names}
        sums = {name: sums[name] + seen[name] if sums else seen[name] for name in names}
        report(f"real+{network.name}, all", done := done + len(images), total)
    return sums


def sample_features(
    name: str,
    reference: Method,
    data: ImageData,
    batch: int,
    folder: Path,
    images: StoredRows,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """A network's outputs for samples, by name, float32 ``(N, ...)``.

    Args:
        name: Name of the network.
        reference: The suite's reference.
        data: Its data.
        batch: Images at once.
        folder: Folder of the reference's cell, with the file of ``real_features``.
        images: Grey levels ``(N, H, W, C)``.
        report: Receives the number of images done.
    """
    if name == REFERENCE:
        real = load_arrays(folder / f"real+{name}.npz", "centre", "scale")
        network: FeatureNetwork = ClassifierFeatures(
            reference.classifier, data.grey.centre, name, real["centre"], float(real["scale"])
        )
    else:
        network = _published(name)
    return extract(network, images, _batch(name, batch), reference.device, report)


def _batch(name: str, batch: int) -> int:
    return batch if name == REFERENCE else min(batch, LARGE)


def _published(name: str) -> FeatureNetwork:
    from benchmark.metrics.published_networks import NETWORKS

    return NETWORKS[name]()
