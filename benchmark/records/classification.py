"""Records of classification."""

from collections.abc import Iterator

import numpy as np

from benchmark.metrics import classification
from benchmark.metrics.arrays import Estimate, mean_estimate, share
from benchmark.records.recorder import Recorder
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays

TOP5_ABOVE = 10
"""Most classes of a task without top-5 accuracy: among 10, chance finds the label in 5 half of the time."""


def classification_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, Stage("classify"))
    if record.reason is not None:
        yield from record.absent(metrics_of("classify"), record.reason)
        return
    found = load_arrays(job.folder / "logits.npz")
    yield from _accuracies(record, "accuracy", found, 1, protocol)
    yield from _masked(record, found, protocol)
    classes = found["clean"].shape[1]
    if classes > TOP5_ABOVE:
        yield from _accuracies(record, "top5", found, 5, protocol)
    clean, y = _softmax(found["clean"]), found["y"]
    if classes == 2:
        yield record("f1", classification.positive_f1(clean, y), average="positive class")
    else:
        yield record("f1", classification.macro_f1(clean, y), average="macro")
    yield record("ece", classification.calibration_error(clean, y))
    yield record("label_nll", mean_estimate(classification.label_nll(found["clean"], y)))
    yield record("brier", mean_estimate(classification.brier(clean, y)))
    if record.manifest.get("nfe", 1) > 1:
        yield record("nfe/classify", Estimate(float(record.manifest["nfe"]), None, len(y)))


def _accuracies(
    record: Recorder, name: str, found: dict[str, np.ndarray], k: int, protocol: Protocol
) -> Iterator[Record]:
    """Share of labels among the ``k`` most probable classes: clean, over all noise levels and at each."""
    y = found["y"]
    yield record(f"{name}/clean", share(classification.hits(found["clean"], y, k)))
    if "noisy" not in found:
        yield from record.absent((f"{name}/noisy", f"{name}/levels", f"{name}/middle"), "reads clean images only")
        return
    yield record(f"{name}/noisy", _over_draws(found["noisy"], y, k), draws=protocol.noisy_draws, times="uniform")
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


def _over_draws(logits: np.ndarray, y: np.ndarray, k: int = 1) -> Estimate:
    """Share of labels among the ``k`` most probable classes of logits ``(draws, N, K)``.

    An image's draws are not independent: the error is over images.
    """
    right = np.stack([classification.hits(draw, y, k) for draw in logits])
    return mean_estimate(right.mean(0))._replace(n=right.size)


def _masked(record: Recorder, found: dict[str, np.ndarray], protocol: Protocol) -> Iterator[Record]:
    """Accuracy with either of two inputs replaced by zeros, on the noisy images of ``accuracy/noisy``."""
    reason = record.manifest.get("masked")
    for name in ("masked_x", "masked_denoised"):
        if reason is None:
            estimate = _over_draws(found[name], found["y"])
            yield record(f"accuracy/{name}", estimate, draws=protocol.noisy_draws, times="uniform")
        else:
            yield from record.absent((f"accuracy/{name}",), reason)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
