"""Records of density, denoising, noise levels and gradients."""

from collections.abc import Iterator

import numpy as np

from benchmark.metrics.arrays import Estimate, cosines, mean_estimate, share
from benchmark.records.recorder import Recorder
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays

ROUNDING = 1e-5
"""Least length of a true gradient over that of the score. A smaller one, a difference of scores in float32, is rounding
and has no direction: the true class is certain there."""
POINTS = {"test": "noisy test images", "grid": "grid"}
"""Points where gradients are compared, by their names in arrays."""


def likelihood_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, Stage("likelihood"))
    if record.reason is not None:
        yield from record.absent(metrics_of("likelihood"), record.reason)
        return
    found = load_arrays(job.folder / "log_prob.npz")
    record.protocol |= {"kind": record.manifest["kind"], "data": record.manifest["data"], **record.manifest["settings"]}
    yield record("nll", mean_estimate(found["bits"]))
    yield record("nfe/nll", mean_estimate(found["nfe"]))


def denoising_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    yield from _errors_of_noise(job, protocol, "denoise", "mse/denoise", "denoise.npz")


def calibration_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    yield from _errors_of_noise(job, protocol, "calibrate", "mse/calibration", "calibration.npz")


def _errors_of_noise(job: Job, protocol: Protocol, kind: str, metric: str, file: str) -> Iterator[Record]:
    """Records of a stage that writes squared errors of predicted noise at the protocol's times."""
    names = [f"{metric}/t={t:g}" for t in protocol.denoise_times]
    record = Recorder(job, Stage(kind))
    if record.reason is not None:
        yield from record.absent(tuple(names), record.reason)
        return
    found = load_arrays(job.folder / file)
    for name, errors, sigma in zip(names, found["errors"], found["sigmas"], strict=True):
        yield record(name, mean_estimate(errors), sigma=float(f"{sigma:.4g}"))


def diagnostic_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, Stage("diagnose"))
    noisy = [f"nll/t={t:g}" for t in protocol.denoise_times]
    if record.reason is not None:
        yield from record.absent((*metrics_of("diagnose"), *noisy), record.reason)
        return
    found = load_arrays(job.folder / "diagnostics.npz")
    yield record("nll/ode", mean_estimate(found["ode_bits"]), kind="estimate", data="dequantised")
    yield record("nll/lattice", mean_estimate(found["lattice_bits"]), kind="density at points", data="grey levels")
    for name, bits, sigma in zip(noisy, found["noisy_bits"].T, found["sigmas"], strict=True):
        yield record(name, mean_estimate(bits), sigma=float(f"{sigma:.4g}"))
    # How well levels can be told apart depends on where they lie: other levels, another task.
    record.protocol["process"] = record.manifest["process"]
    yield record("level_ce", mean_estimate(found["level_ce"]))
    yield record("accuracy/level", share(found["level_right"]))
    yield record("mse/level", mean_estimate(found["level_mse"]))
    yield record("level_balance", _level_balance(found["level_balance"]))


def _level_balance(steps: np.ndarray) -> Estimate:
    """``sum_t log mean_x exp(F_t - F_{t+1})`` over images of level ``t + 1``, in nats; 0 for the optimal classifier.

    Args:
        steps: ``F_t - F_{t+1}``, ``(N, T + 1)``.
    """
    steps = steps.astype(np.float64)
    top = steps.max(0)
    weights = np.exp(steps - top)
    means = weights.mean(0)
    variances = weights.var(0, ddof=1) / len(weights) / means**2
    return Estimate(float((top + np.log(means)).sum()), float(np.sqrt(variances.sum())), len(steps))


def gradient_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    """Records of gradients; cells without an exact score have none, unless their data has one."""
    record = Recorder(job, Stage("gradients"))
    if record.reason is not None:
        if record.manifest.get("expected"):
            yield from record.absent(metrics_of("gradients", expected=False), record.reason)
        return
    found = load_arrays(job.folder / "gradients.npz")
    for points in record.manifest["points"]:
        yield from _of_points(record, points, found)


def _of_points(record: Recorder, points: str, found: dict[str, np.ndarray]) -> Iterator[Record]:
    """Records of gradients at a kind of points, at each noise level."""
    answers = (found[f"{points}_{name}"] for name in ("estimate", "truth", "score"))
    for estimate, truth, score, sigma in zip(*answers, found["sigmas"], strict=True):
        at = {"sigma": float(f"{sigma:.4g}"), "points": POINTS[points]}
        told = np.linalg.norm(truth, axis=1) > ROUNDING * np.linalg.norm(score, axis=1)
        if told.sum() > 1:
            yield record("gradient/cosine", mean_estimate(cosines(estimate[told], truth[told])), **at)
        else:
            yield from record.absent(("gradient/cosine",), "the true class is certain at all points", **at)
        # (d) Table 6 gives the errors without and with the one factor that makes them least.
        power = float(np.square(estimate).sum())
        best = float((estimate * truth).sum()) / power if power else 1.0
        for scaling, factor in (("none", 1.0), ("best", best)):
            scaled = factor * estimate
            yield record("gradient/mse", mean_estimate(np.square(scaled - truth).sum(1)), scaling=scaling, **at)
            agreement = cosines(score + scaled, score + truth)
            yield record("score/cosine", mean_estimate(agreement), scaling=scaling, **at)
