"""Records of cost."""

from collections.abc import Iterator

from benchmark.metrics.arrays import Estimate
from benchmark.records.recorder import Recorder
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.files import read_manifest


def cost_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    train = Recorder(job, Stage("train"))
    total = 0.0
    if job.cell.config is None:
        yield from train.absent((*metrics_of("train"), *metrics_of("sample")), "images, not a model")
    else:
        total = train.manifest["cpu_seconds"]
        yield train("cpu_seconds/train", Estimate(total, None, 1))
        images = train.manifest["steps"] * train.manifest["images_per_step"]
        if images:
            yield train("throughput/train", Estimate(images / train.manifest["seconds"], None, images))
        else:
            reason = "published weights, not trained" if train.manifest.get("published") else "fitted in closed form"
            yield from train.absent(("throughput/train",), reason)
        yield from _sampling_costs(job)
    for stage in job.stages:
        manifest = read_manifest(stage.manifest(job.folder)) or {}
        total += manifest.get("cpu_seconds", 0.0)
    yield train("cpu_seconds/total", Estimate(total, None, 1))


def _sampling_costs(job: Job) -> Iterator[Record]:
    for scale in job.cell.guidance_scales or [None]:
        record = Recorder(job, Stage("sample", scale=scale))
        if "reason" in record.manifest:
            yield from record.absent(metrics_of("sample"), record.manifest["reason"])
            continue
        n = record.manifest["samples"]
        yield record("cpu_seconds/sample", Estimate(record.manifest["cpu_seconds"], None, n))
        yield record("throughput/sample", Estimate(n / record.manifest["seconds"], None, n))
