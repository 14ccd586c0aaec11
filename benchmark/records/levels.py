"""Records over all noise levels: denoising, and features of noisy images."""

from collections.abc import Iterator

from benchmark.metrics.arrays import mean_estimate
from benchmark.records.recorder import Recorder
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays


def curves_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, Stage("curves"))
    if record.reason is not None:
        yield from record.absent(metrics_of("curves", expected=False), record.reason)
        return
    found = load_arrays(job.folder / "curves.npz")
    yield record("mse/levels", mean_estimate(found["errors"].mean(0)), levels=len(found["times"]))
    for t, sigma, errors in zip(found["times"], found["sigmas"], found["errors"], strict=True):
        yield record(f"mse/levels/t={t:.3f}", mean_estimate(errors), sigma=float(f"{sigma:.4g}"))


def probe_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    record = Recorder(job, Stage("probe"))
    if record.reason is not None:
        yield from record.absent(metrics_of("probe", expected=False), record.reason)
        return
    found = load_arrays(job.folder / "probe.npz")
    about = {"attributes": len(found["names"]), "images": record.manifest["images"]}
    yield record("probe", mean_estimate(found["right"].mean((0, 2))), **about)
    for t, sigma, right in zip(found["times"], found["sigmas"], found["right"], strict=True):
        yield record(f"probe/t={t:g}", mean_estimate(right.mean(1)), sigma=float(f"{sigma:.4g}"), **about)
