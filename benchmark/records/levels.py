"""Records over all noise levels: denoising, and features of noisy images."""

from collections.abc import Iterator

import numpy as np

from benchmark.metrics.arrays import mean_estimate
from benchmark.records.recorder import Recorder, of_answers
from benchmark.results.record import Record


@of_answers("curves")
def curves_records(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    yield record("mse/levels", mean_estimate(found["errors"].mean(0)), levels=len(found["times"]))
    for t, sigma, errors in zip(found["times"], found["sigmas"], found["errors"], strict=True):
        yield record(f"mse/levels/t={t:.3f}", mean_estimate(errors), sigma=float(f"{sigma:.4g}"))


@of_answers("probe")
def probe_records(record: Recorder, found: dict[str, np.ndarray]) -> Iterator[Record]:
    about = {"attributes": len(found["names"]), "images": record.manifest["images"]}
    yield record("probe", mean_estimate(found["right"].mean((0, 2))), **about)
    for t, sigma, right in zip(found["times"], found["sigmas"], found["right"], strict=True):
        yield record(f"probe/t={t:g}", mean_estimate(right.mean(1)), sigma=float(f"{sigma:.4g}"), **about)
