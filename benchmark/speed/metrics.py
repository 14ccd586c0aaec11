"""Our fidelity metrics against named peers: CPU time in one process, interleaved, equality checked first.

One JSON row per target and peer; ratios above 1 favour us. Peers that are not installed are skipped.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmark.metrics.features import extract
from benchmark.metrics.frechet import Statistics, frechet_estimate
from benchmark.metrics.neighbours import neighbour_radii, precision_recall
from benchmark.metrics.published_networks import InceptionFeatures
from benchmark.speed.peers import peer, race
from benchmark.system.files import digest_file


def compare(target: str, package: str, ours: Callable, theirs: Callable, rounds: int, tolerance: float, **more) -> None:
    """Check that both give the same numbers, then time them in turn and print the row."""
    mine, other = np.asarray(ours(), np.float64), np.asarray(theirs(), np.float64)
    error = float(np.abs(mine - other).max() / np.abs(other).max())
    if not error <= tolerance:
        sys.exit(f"error: {target}: our numbers and {package}'s differ by {error:.2g} relative, allowed {tolerance}")
    race(target, package, ours, theirs, rounds, relative_error=error, **more)


def peak_bytes(work: Callable) -> int:
    """Growth of resident memory at its peak while ``work`` runs (Linux)."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = int(status.read_text().split("VmRSS:")[1].split()[0])
    work()
    return 1024 * (int(status.read_text().split("VmHWM:")[1].split()[0]) - before)


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Non-negative, correlated features with a decaying spectrum, as after a ReLU; odd seeds are shifted."""
    mixing = np.random.default_rng(0).normal(size=(d, d)) / np.arange(1, d + 1)[:, None] ** 0.5
    x = np.random.default_rng(seed).normal(0.1 * (seed % 2), 1, (n, d))
    return torch.from_numpy(np.abs(x @ mixing).astype(np.float32))


def frechet(n: int, d: int, rounds: int) -> None:
    real, fake = features(n, d, 2), features(n, d, 3)
    reference = Statistics.of(real)

    def ours(reference: Statistics | None = reference) -> float:
        return frechet_estimate(reference or Statistics.of(real), fake).value

    def row(package: str, theirs: Callable, ours: Callable = ours, cache: str = "cached") -> None:
        compare(f"frechet/D={d}/{cache}", package, ours, theirs, rounds, 1e-6, n=n)

    if m := peer("torch_fidelity.metric_fid"):
        s, cached = m.fid_features_to_statistics, m.fid_features_to_statistics(real)
        row("torch-fidelity", lambda: list(m.fid_statistics_to_metric(cached, s(fake), False).values()))
        whole = lambda: list(m.fid_statistics_to_metric(s(real), s(fake), False).values())  # noqa: E731
        row("torch-fidelity", whole, lambda: ours(None), "uncached")
    sides = reference.mean, reference.covariance
    if m := peer("torchmetrics.image.fid"):
        a = [torch.from_numpy(side) for side in sides]
        row("torchmetrics", lambda: m._compute_fid(*a, fake.double().mean(0), fake.double().T.cov()))
    if m := peer("pytorch_fid.fid_score"):
        row("pytorch-fid", lambda: m.calculate_frechet_distance(*sides, fake.numpy().mean(0), np.cov(fake.numpy().T)))


def neighbours(n: int, d: int, rounds: int) -> None:
    real, fake = features(n, d, 2), features(n, d, 3)
    radii = neighbour_radii(real)

    def ours(real_radii: np.ndarray | None = None) -> list[int]:
        return [round(x.value * n) for x in precision_recall(real, fake, real_radii=real_radii)]

    if m := peer("torch_fidelity.metric_prc"):
        theirs = lambda: [round(x * n) for x in m.calculate_precision_recall_full(fake, real)]  # noqa: E731
        memory = {"memory_ratio": peak_bytes(ours) / peak_bytes(theirs)}
        compare(f"precision_recall/D={d}/uncached", "torch-fidelity", ours, theirs, rounds, 0, n=n, **memory)
        compare(f"precision_recall/D={d}/cached", "torch-fidelity", lambda: ours(radii), theirs, rounds, 0, n=n)


def inception(weights: Path, rounds: int) -> None:
    images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = InceptionFeatures(weights, sha256=digest_file(weights))
    if m := peer("torch_fidelity.feature_extractor_inceptionv3"):
        theirs = m.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
        work = (lambda: extract(ours, images)["features"]), (lambda: theirs(images)[0])
        compare("inception", "torch-fidelity", *work, rounds, 1e-5, n=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--n", type=int, default=6000, help="images on each side; Frechet distances take half")
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 2048], help="widths of the Frechet distances")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every side")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="Inception weights; also times the features")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):  # NumPy's
        neighbours(options.n, 2048, max(1, options.rounds // 3))
        for d in options.dims:
            frechet(options.n // 2, d, options.rounds if d <= 1024 else max(1, options.rounds // 3))
        if options.weights:
            inception(options.weights, options.rounds)


if __name__ == "__main__":
    main()
