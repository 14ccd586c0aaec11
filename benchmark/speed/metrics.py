"""Fidelity metrics as records call them: real images' statistics and radii are at hand, samples are new."""

from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark.metrics import neighbours
from benchmark.metrics.features import extract
from benchmark.metrics.frechet import Statistics, frechet_estimate
from benchmark.metrics.published_networks import InceptionFeatures
from benchmark.speed.race import Bench, Side
from benchmark.system.files import digest_file


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Non-negative, correlated features with a decaying spectrum, as after a ReLU; odd seeds are shifted."""
    mixing = np.random.default_rng(0).normal(size=(d, d)) / np.arange(1, d + 1)[:, None] ** 0.5
    x = np.random.default_rng(seed).normal(0.1 * (seed % 2), 1, (n, d))
    return torch.from_numpy(np.abs(x @ mixing).astype(np.float32))


def frechet(bench: Bench) -> None:
    """Frechet distance of new samples; its standard error is part of our time."""
    for d in bench.size((1024, 2048), (16,)):
        _frechet(bench, bench.size(3000, 64), d)


def _frechet(bench: Bench, n: int, d: int) -> None:
    real, fake = features(n, d, 2), features(n, d, 3)
    reference = Statistics.of(real)
    reference.root  # noqa: B018  (computed once a suite)
    sides = reference.mean, reference.covariance
    cached: dict[str, Side] = {}
    whole: dict[str, Side] = {}
    if fidelity := bench.peers.package("torch_fidelity.metric_fid"):
        statistics, known = fidelity.fid_features_to_statistics, fidelity.fid_features_to_statistics(real)
        to_metric = fidelity.fid_statistics_to_metric
        cached["torch-fidelity"] = Side(lambda: list(to_metric(known, statistics(fake), False).values()))
        whole["torch-fidelity"] = Side(lambda: list(to_metric(statistics(real), statistics(fake), False).values()))
    if torchmetrics := bench.peers.package("torchmetrics.image.fid"):
        given = [torch.from_numpy(side) for side in sides]
        compute = torchmetrics._compute_fid
        cached["torchmetrics"] = Side(lambda: compute(*given, fake.double().mean(0), fake.double().T.cov()))
    if by_root := bench.peers.package("pytorch_fid.fid_score"):
        by_root = by_root.calculate_frechet_distance
        cached["pytorch-fid"] = Side(lambda: by_root(*sides, fake.numpy().mean(0), np.cov(fake.numpy().T)))
    ours = {
        f"D={d}/cached": Side(lambda: frechet_estimate(reference, fake).value, tolerance=1e-6),
        f"D={d}/uncached": Side(lambda: frechet_estimate(Statistics.of(real), fake).value, tolerance=1e-6),
    }
    for (row, side), theirs in zip(ours.items(), (cached, whole), strict=True):
        bench.race("frechet", {row: side}, theirs, n=n)


def precision_recall(bench: Bench) -> None:
    """Improved precision and recall of new samples; the counts must be identical."""
    n, d = bench.size((6000, 2048), (64, 16))
    real, fake = features(n, d, 2), features(n, d, 3)
    radii = neighbours.neighbour_radii(real)

    def ours(real_radii: np.ndarray | None) -> list[int]:
        return [round(x.value * n) for x in neighbours.precision_recall(real, fake, real_radii=real_radii)]

    theirs: dict[str, Side] = {}
    if m := bench.peers.package("torch_fidelity.metric_prc"):
        counts = m.calculate_precision_recall_full
        theirs["torch-fidelity"] = Side(lambda: [round(x * n) for x in counts(fake, real)])
    if prdc := bench.peers.package("prdc"):
        theirs["prdc"] = Side(partial(_of_prdc, prdc, real.numpy(), fake.numpy()))
    sides = {"uncached": Side(partial(ours, None)), "cached": Side(partial(ours, radii))}
    bench.race("precision_recall", sides, theirs, n=n, d=d)
    for peer, side in theirs.items():
        bench.compare_memory("precision_recall", "memory", peer, sides["cached"], side, n=n, d=d)


def _of_prdc(peer: Any, real: np.ndarray, fake: np.ndarray) -> list[int]:
    """Counts of prdc, which prints the sizes of its sets."""
    with redirect_stdout(StringIO()):
        found = peer.compute_prdc(real, fake, nearest_k=3)
    return [round(found[name] * len(real)) for name in ("precision", "recall")]


def inception(bench: Bench) -> None:
    """Features of Inception v3 with random weights."""
    if (m := bench.peers.package("torch_fidelity.feature_extractor_inceptionv3")) is None:
        return
    n = bench.size(16, 1)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
    with TemporaryDirectory() as folder:
        weights = random_weights(m.FeatureExtractorInceptionV3, Path(folder))
        ours = InceptionFeatures(weights, sha256=digest_file(weights))
        settings = {"feature_extractor_weights_path": str(weights)}
        network = m.FeatureExtractorInceptionV3("inception", ["2048"], **settings)
        theirs = {"torch-fidelity": Side(lambda: network(images)[0])}
        if t := bench.peers.package("torchmetrics.image.fid"):
            wrapped = t.NoTrainInceptionV3("inception", ["2048"], str(weights), antialias=False)
            theirs["torchmetrics"] = Side(lambda: wrapped(images))
    side = Side(lambda: extract(ours, images)["features"], tolerance=1e-5)
    bench.race("inception", {"features": side}, theirs, images=n)


def random_weights(extractor: type[nn.Module], folder: Path) -> Path:
    """A file of random weights in the published format, under which activations neither vanish nor explode."""

    class Unread(extractor):
        """The network before weights are read: what it was built with."""

        def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> None:
            """Reads nothing."""

    torch.save({}, folder / "none.pth")
    network = Unread("random", ["2048"], feature_extractor_weights_path=str(folder / "none.pth"))
    for block in network.modules():
        if hasattr(block, "bn"):
            nn.init.kaiming_normal_(block.conv.weight, nonlinearity="relu")
            block.bn.running_mean.normal_(0, 0.1)
            block.bn.running_var.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"
