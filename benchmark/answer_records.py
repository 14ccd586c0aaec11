"""Records of what a method answered about test images: classes, log-densities, noise and noise levels, gradients."""

from collections.abc import Iterator

import numpy as np

from benchmark.array_files import load_arrays
from benchmark.metrics import classification
from benchmark.metrics.arrays import Estimate, cosines, mean_estimate, share
from benchmark.plan import Job
from benchmark.protocol import Protocol
from benchmark.record import Record
from benchmark.recorder import Recorder
from benchmark.table_rows import CLASSIFICATION, DIAGNOSTICS, MASKED, NLL

TOP5_ABOVE = 10
"""Classes that a task must exceed for its top-5 accuracy to say something: of 10, chance finds the label in 5 half of
the time. Tasks of fewer have no such column."""


def _classification(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, "classify", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent((*CLASSIFICATION, *MASKED), reason)
        return
    found = load_arrays(job.folder / "logits.npz")
    yield from _accuracies(record, "accuracy", found, 1, protocol)
    yield from _masked(record, found)
    classes = found["clean"].shape[1]
    if classes > TOP5_ABOVE:
        yield from _accuracies(record, "top5", found, 5, protocol)
    clean, y = _softmax(found["clean"]), found["y"]
    if classes == 2:
        yield record("f1", classification.positive_f1(clean, y), average="positive class")
    else:
        yield record("f1", classification.macro_f1(clean, y), average="macro")
    yield record("ece", classification.calibration_error(clean, y))


def _accuracies(
    record: Recorder, name: str, found: dict[str, np.ndarray], k: int, protocol: Protocol
) -> Iterator[Record]:
    """How often the label is among the ``k`` most probable classes: clean, over all noise levels and at each."""
    y = found["y"]
    yield record(f"{name}/clean", share(classification.hits(found["clean"], y, k)))
    if "noisy" not in found:
        yield from record.absent((f"{name}/noisy", f"{name}/levels", f"{name}/middle"), "reads clean images only")
        return
    right = np.stack([classification.hits(draw, y, k) for draw in found["noisy"]])
    # An image's draws are not independent: the error is over images.
    noisy = mean_estimate(right.mean(0))
    yield record(f"{name}/noisy", noisy._replace(n=right.size), draws=protocol.noisy_draws, times="uniform")
    right = np.stack([classification.hits(level, y, k) for level in found["levels"]])
    curve = classification.accuracy_over_levels(right)
    yield record(f"{name}/levels", curve.mean, levels=protocol.levels)
    low, high = protocol.middle
    middle = (found["level_sigmas"] >= low) & (found["level_sigmas"] <= high)
    if middle.any():
        yield record(f"{name}/middle", mean_estimate(right[middle].mean(0)), sigma=f"{low:g} to {high:g}")
    else:
        reason = f"no level of sigma {low:g} to {high:g} among the {protocol.levels}"
        yield from record.absent((f"{name}/middle",), reason)
    for t, sigma, estimate in zip(found["level_times"], found["level_sigmas"], curve.per_level, strict=True):
        yield record(f"{name}/t={t:.3f}", estimate, sigma=float(f"{sigma:.4g}"))


def _masked(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    """Accuracy with either of two inputs replaced by zeros, on the first draw of ``accuracy/noisy``."""
    for metric in MASKED:
        name = metric.partition("/")[2]
        if name in found:
            hits = classification.hits(found[name], found["y"])
            yield record(metric, share(hits), draws=1, times="uniform")
        else:
            yield from record.absent((metric,), "reads one image, not two")


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _likelihood(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, "likelihood", {})
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent(NLL, reason)
        return
    found = load_arrays(job.folder / "log_prob.npz")
    record.protocol |= {"kind": record.manifest["kind"], "data": record.manifest["data"], **record.manifest["settings"]}
    yield record("nll", mean_estimate(found["bits"]))
    yield record("nfe/nll", mean_estimate(found["nfe"]))


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
    noisy = [f"nll/t={t:g}" for t in protocol.denoise_times]
    reason = record.manifest.get("reason") if job.cell.config else "images, not a model"
    if reason is not None:
        yield from record.absent((*DIAGNOSTICS, *noisy), reason)
        return
    found = load_arrays(job.folder / "diagnostics.npz")
    yield record("nll/lattice", mean_estimate(found["lattice_bits"]), kind="density at points", data="grey levels")
    for name, bits, sigma in zip(noisy, found["noisy_bits"].T, found["sigmas"], strict=True):
        yield record(name, mean_estimate(bits), sigma=float(f"{sigma:.4g}"))
    # How well levels can be told apart depends on where they lie: other levels, another task.
    record.protocol["process"] = record.manifest["process"]
    yield record("level_ce", mean_estimate(found["level_ce"]))
    yield record("accuracy/level", share(found["level_right"]))
    yield record("mse/level", mean_estimate(found["level_mse"]))
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
    """Nothing of cells that have no exact score, unless their data was made to have one: few data sets are."""
    record = Recorder(job, "gradients", {})
    if job.cell.config is None or "reason" in record.manifest:
        if record.manifest.get("expected"):
            yield from record.absent(("gradient/mse", "gradient/cosine", "score/cosine"), record.manifest["reason"])
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


ANSWERS = (_classification, _likelihood, _denoising, _diagnostics, _gradients)
