"""Which numbers a cell's rows have, and the records of finished and failed cells."""

from collections.abc import Iterable
from typing import NamedTuple

from benchmark.files import read_json
from benchmark.plan import Job
from benchmark.record import Record, failed

CLASSIFICATION = ("accuracy/clean", "accuracy/noisy", "accuracy/levels", "accuracy/middle", "f1", "ece")
MASKED = ("accuracy/masked_x", "accuracy/masked_denoised")
NLL = ("nll", "nfe/nll")
DIAGNOSTICS = ("nll/lattice", "level_ce", "accuracy/level", "mse/level", "telescoping")
COSTS = ("cpu_seconds/train", "throughput/train", "cpu_seconds/sample", "throughput/sample")
EYE_CATCHERS = ("accuracy/clean", "accuracy/middle", "nll", "accuracy/generated", "fd")


class FidelityNames(NamedTuple):
    """What distances between features are called."""

    frechet: str
    intra: str
    kernel: str


def fidelity_names(network: str) -> FidelityNames:
    """On Inception's features they are the FID and the KID; on no others."""
    return FidelityNames("fid", "fid/intra", "kid") if network == "inception" else FidelityNames("fd", "fd/intra", "kd")


def generation_metrics(networks: Iterable[str]) -> tuple[str, ...]:
    """Every metric of samples that are looked at by these networks."""
    found = ["accuracy/generated", "is", "precision", "recall", "prd/precision", "prd/recall", "nn_ratio"]
    for network in networks:
        found += [*fidelity_names(network), *(["sfid"] if network == "inception" else [])]
    return tuple(dict.fromkeys(found))


def read_records(job: Job) -> list[Record]:
    """Records of a finished evaluation; none if it has not been finished."""
    if job.stages[-1].completed(job.folder) is None:
        return []
    items = read_json(job.folder / "record.json")
    return [Record(**item) for item in items]


def failed_records(job: Job, error: str) -> list[Record]:
    """What a failed evaluation would have measured, as failures."""
    answers = (*CLASSIFICATION, *MASKED, *NLL, *DIAGNOSTICS) if job.cell.config is not None else ()
    rows = [(metric, {}) for metric in answers]
    looked = [stage.name.partition("@")[0] for stage in job.stages if stage.name.startswith("features+")]
    generation = generation_metrics(dict.fromkeys(name.removeprefix("features+") for name in looked))
    for scale in job.cell.guidance_scales or [None]:
        protocol = {} if scale is None else {"guidance_scale": scale}
        rows += [(metric, protocol) for metric in generation]
    return [failed(job.cell.name, job.method, job.seed, m, error, protocol=p) for m, p in rows]


def headline_numbers(job: Job) -> str:
    """A few numbers of a finished cell on one line."""
    parts = []
    for record in read_records(job):
        if record.metric in EYE_CATCHERS and record.value is not None:
            scale = record.protocol.get("guidance_scale")
            parts.append(f"{record.metric}{'' if scale is None else f'@{scale:g}'} {record.value:.3f}")
    return "  ".join(parts)
