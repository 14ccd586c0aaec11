"""Our fidelity metrics against the named peers: CPU time in one process, interleaved, equality checked first.

Prints one JSON row per target and peer. Peers that are not installed are skipped with a message.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmark.files import digest_file
from benchmark.metrics.features import InceptionFeatures, extract
from benchmark.metrics.fidelity import Statistics, frechet_distance, neighbour_radii, precision_recall

Work = Callable[[], object]


def peer(module: str) -> object | None:
    """The peer's module, or None with a message."""
    try:
        return import_module(module)
    except ImportError as error:
        print(f"skipped {module}: {error}", file=sys.stderr)
        return None


def compare(target: str, package: str, ours: Work, theirs: Work, rounds: int, n: int, tolerance: float, **more) -> None:
    """Check that both give the same numbers, then time them in turn and print the row; ratios above 1 favour us."""
    mine, other = np.asarray(ours(), np.float64), np.asarray(theirs(), np.float64)
    error = float(np.abs(mine - other).max() / np.abs(other).max())
    if not error <= tolerance:
        sys.exit(f"error: {target}: ours and {package}'s numbers differ by {error:.2g} relative, allowed {tolerance}")
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for who, work in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            work()
            times[who].append(time.process_time() - start)
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    row = {
        "target": target,
        "peer": package,
        "ratio": round(statistics.median(times["theirs"]) / statistics.median(times["ours"]), 3),
        "min": round(min(ratios), 3),
        "median_s": {who: round(statistics.median(t), 4) for who, t in times.items()},
        "rounds": rounds,
        "n": n,
        "relative_error": error,
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", package)},
        "threads": torch.get_num_threads(),
        **more,
    }
    print(json.dumps(row), flush=True)


def peak_bytes(work: Work) -> int:
    """Growth of resident memory at its peak while ``work`` runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def features(n: int, d: int, rng: np.random.Generator, shift: float = 0.0) -> torch.Tensor:
    """Non-negative, correlated features with a decaying spectrum, as after a ReLU and a mean."""
    mixing = np.random.default_rng(0).normal(size=(d, d)) / np.arange(1, d + 1)[:, None] ** 0.5
    return torch.from_numpy(np.abs(rng.normal(shift, 1, (n, d)) @ mixing).astype(np.float32))


def frechet(n: int, d: int, rounds: int, rng: np.random.Generator) -> None:
    real, fake = features(n, d, rng), features(n, d, rng, 0.1)
    reference = Statistics.of(real)
    reference.root  # noqa: B018 - the cached side

    def cached() -> float:
        return frechet_distance(reference, Statistics.of(fake))

    def uncached() -> float:
        return frechet_distance(Statistics.of(real), Statistics.of(fake))

    mean, covariance = reference.mean, reference.covariance
    if module := peer("torch_fidelity.metric_fid"):
        real_statistics = module.fid_features_to_statistics(real)

        def fidelity(first: dict | None = real_statistics) -> float:
            first = first or module.fid_features_to_statistics(real)
            second = module.fid_features_to_statistics(fake)
            return module.fid_statistics_to_metric(first, second, False)[module.KEY_METRIC_FID]

        compare(f"frechet/D={d}/cached", "torch-fidelity", cached, fidelity, rounds, n, 1e-6)
        compare(f"frechet/D={d}/uncached", "torch-fidelity", uncached, lambda: fidelity(None), rounds, n, 1e-6)
    if module := peer("torchmetrics.image.fid"):

        def lightning() -> float:
            x = fake.double()
            fake_side = x.mean(0), x.T.cov()
            return float(module._compute_fid(torch.from_numpy(mean), torch.from_numpy(covariance), *fake_side))

        compare(f"frechet/D={d}/cached", "torchmetrics", cached, lightning, rounds, n, 1e-6)
    if module := peer("pytorch_fid.fid_score"):

        def pytorch_fid() -> float:
            x = fake.numpy()
            return module.calculate_frechet_distance(mean, covariance, x.mean(0), np.cov(x, rowvar=False))

        compare(f"frechet/D={d}/cached", "pytorch-fid", cached, pytorch_fid, rounds, n, 1e-6)


def neighbours(n: int, d: int, rounds: int, rng: np.random.Generator) -> None:
    real, fake = features(n, d, rng), features(n, d, rng, 0.1)
    radii = neighbour_radii(real)

    def ours(real_radii: np.ndarray | None = None) -> list[int]:
        return [round(x.value * n) for x in precision_recall(real, fake, real_radii=real_radii)]

    if module := peer("torch_fidelity.metric_prc"):

        def theirs() -> list[int]:
            return [round(x * n) for x in module.calculate_precision_recall_full(fake, real)]

        memory = {"memory_ratio": round(peak_bytes(ours) / peak_bytes(theirs), 3)}
        compare(f"precision_recall/D={d}/uncached", "torch-fidelity", ours, theirs, rounds, n, 0, **memory)
        compare(f"precision_recall/D={d}/cached", "torch-fidelity", lambda: ours(radii), theirs, rounds, n, 0)


def inception(weights: Path, rounds: int, rng: np.random.Generator) -> None:
    images = torch.from_numpy(rng.integers(0, 256, (16, 3, 32, 32), dtype=np.uint8))
    network = InceptionFeatures(weights, sha256=digest_file(weights))
    if module := peer("torch_fidelity.feature_extractor_inceptionv3"):
        build = module.FeatureExtractorInceptionV3
        other = build("inception", ["2048"], feature_extractor_weights_path=str(weights))
        ours, theirs = (lambda: extract(network, images)[0]), (lambda: other(images)[0])
        compare("inception", "torch-fidelity", ours, theirs, rounds, len(images), 1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of D = 1024; a third of them for D = 2048")
    parser.add_argument("--n", type=int, default=6000, help="images on each side")
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 2048], help="widths of the Frechet distances")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every side")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="Inception weights; also times the features")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(1)
    with threadpool_limits(options.threads):
        neighbours(options.n, 2048, max(1, options.rounds // 3), rng)
        for d in options.dims:
            frechet(options.n, d, options.rounds if d <= 1024 else max(1, options.rounds // 3), rng)
        if options.weights:
            inception(options.weights, options.rounds, rng)


if __name__ == "__main__":
    main()
