"""Records of what guidance does: gradients along images, steps of samples, and counterfactuals."""

from collections.abc import Iterator

import numpy as np

from benchmark.metrics.arrays import mean_estimate, ratio_of_means, share
from benchmark.metrics.structure import concentration
from benchmark.records.recorder import Recorder, of_answers
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record

ALIGNED = {
    "noisy": "alignment",
    "clean": "alignment_clean",
    "denoised": "alignment_denoised",
    "smoothness": "smoothness",
}
"""Arrays of ``alignment.npz`` and their metrics."""
AT = 0.35
"""Time of the gradients in (a) Fig. 3, at which they have a number."""


@of_answers("alignment")
def alignment_records(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    for name, metric in ALIGNED.items():
        for t, sigma, values in zip(found["times"], found["sigmas"], found[name], strict=True):
            estimate, at = mean_estimate(values), {"sigma": float(f"{sigma:.4g}")}
            if t == AT:
                yield record(f"gradient/{metric}", estimate, **at)
            if name in ("noisy", "smoothness"):
                yield record(f"gradient/{metric}/t={t:g}", estimate, **at)
    for t, sigma, along, squared in zip(*(found[k] for k in ("times", "sigmas", "along", "squared")), strict=True):
        if squared.any():
            yield record(f"gradient/scale/t={t:g}", ratio_of_means(along, squared), sigma=float(f"{sigma:.4g}"))


@of_answers("steps")
def steps_records(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    if not record.manifest["judged"]:
        reason = "no classifier of noisy images, or no class asked"
        yield from record.absent(metrics_of("steps", expected=False), reason)
        return
    predicted = found["probabilities"].argmax(2)
    right = predicted == found["labels"]
    yield record("steps/asked", mean_estimate(right.mean(0)))
    # The last step at which the prediction differs from the final one; -1 if there is none.
    changed = predicted != predicted[-1]
    last = np.where(changed.any(0), len(changed) - 1 - changed[::-1].argmax(0), -1)
    yield record("steps/decided", mean_estimate((last + 1) / len(changed)))
    for step in found["strip"]:
        t, sigma = found["times"][step], found["sigmas"][step]
        yield record(f"steps/asked/t={t:.3f}", share(right[step]), sigma=float(f"{sigma:.4g}"))


@of_answers("counterfactual")
def counterfactual_records(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    record.protocol["sigma"] = float(f"{record.manifest['sigma']:.4g}")
    unit = 2 / record.manifest["grey_levels"]
    original = found["original"].astype(np.float64)
    change = {name: unit * (found[name] - original) for name in ("changed", "unguided")}
    yield record("counterfactual/asked", share(found["judged"] == found["asked"]))
    yield record("counterfactual/kept", share(found["judged"] == found["labels"]))
    if "own" in found:
        yield record("counterfactual/own", share(found["own"] == found["asked"]))
    else:
        yield from record.absent(["counterfactual/own"], "no class posterior")
    for name, metric in (("changed", "distance"), ("unguided", "distance_unguided")):
        rms = np.sqrt(np.square(change[name]).mean((1, 2, 3)))
        yield record(f"counterfactual/{metric}", mean_estimate(rms))
    local = concentration(np.moveaxis(change["changed"], 3, 1))
    yield record("counterfactual/local", mean_estimate(local))
