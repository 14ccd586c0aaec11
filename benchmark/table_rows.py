"""Which numbers a cell's rows have, and the records of finished and failed cells."""

import json

from benchmark.plan import Job
from benchmark.record import Record, failed

CLASSIFICATION = ("accuracy/clean", "accuracy/noisy", "accuracy/levels", "accuracy/middle", "f1", "ece")
TOP5 = ("top5/clean", "top5/noisy", "top5/levels", "top5/middle")
MASKED = ("accuracy/masked_x", "accuracy/masked_denoised")
GENERATION = ("accuracy/generated", "fd", "fd/intra", "is", "precision", "recall", "nn_ratio")
NLL = ("nll", "nfe/nll")
DIAGNOSTICS = ("nll/lattice", "level_ce", "accuracy/level", "mse/level", "telescoping")
COSTS = ("cpu_seconds/train", "throughput/train", "cpu_seconds/sample", "throughput/sample")
EYE_CATCHERS = ("accuracy/clean", "accuracy/middle", "nll", "accuracy/generated", "fd")


def read_records(job: Job) -> list[Record]:
    """Records of a finished evaluation; none if it has not been finished."""
    if job.stages[-1].completed(job.folder) is None:
        return []
    items = json.loads((job.folder / "record.json").read_text(encoding="utf-8"))
    return [Record(**item) for item in items]


def failed_records(job: Job, error: str) -> list[Record]:
    """What a failed evaluation would have measured, as failures."""
    rows = [(metric, {}) for metric in (*CLASSIFICATION, *NLL)]
    for scale in job.cell.guidance_scales or [None]:
        protocol = {} if scale is None else {"guidance_scale": scale}
        rows += [(metric, protocol) for metric in GENERATION]
    return [failed(job.cell.name, job.method, job.seed, m, error, protocol=p) for m, p in rows]


def headline_numbers(job: Job) -> str:
    """A few numbers of a finished cell on one line."""
    parts = []
    for record in read_records(job):
        if record.metric in EYE_CATCHERS and record.value is not None:
            scale = record.protocol.get("guidance_scale")
            parts.append(f"{record.metric}{'' if scale is None else f'@{scale:g}'} {record.value:.3f}")
    return "  ".join(parts)
