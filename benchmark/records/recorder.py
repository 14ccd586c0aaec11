"""Factory of a cell's records, with the protocol and costs of its stages."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from benchmark.metrics.arrays import Estimate
from benchmark.results.definitions import metrics_of
from benchmark.results.record import Record, measured, not_applicable
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.stages import Stage, scale_tag
from benchmark.system.arrays import load_arrays
from benchmark.system.files import read_manifest


class Recorder:
    """Factory of the records of one cell and stage.

    Args:
        job: The cell's evaluation.
        stage: The stage that answered, with or without its key.

    Attributes:
        manifest: What the stage recorded.
        protocol: Settings that all its numbers share.
        reason: Why the cell has no answer at this stage; None if it has one.
    """

    def __init__(self, job: Job, stage: Stage) -> None:
        self.job = job
        trained = read_manifest(Stage("train").manifest(job.trained)) if job.trained else None
        own = trained if stage.kind == "train" else read_manifest(stage.manifest(job.folder))
        self.manifest = own or {}
        self.reason = self.manifest.get("reason") if job.cell.config else "images, not a model"
        about = {key: trained.get(key) for key in ("n_labeled", "task")} if trained else {}
        about["guidance_scale"] = stage.scale
        self.protocol = {key: value for key, value in about.items() if value is not None}

    def __call__(self, metric: str, estimate: Estimate, **protocol: Any) -> Record:
        return measured(
            self.job.cell.name, self.job.method, self.job.seed, metric, estimate.value,
            n=estimate.n, stderr=estimate.stderr, protocol={**self.protocol, **protocol},
            seconds=self.manifest.get("seconds"), peak_memory_bytes=self.manifest.get("peak_memory_bytes"),
            key=self.manifest.get("key", ""),
        )  # fmt: skip

    def absent(self, metrics: Iterable[str], reason: str, **protocol: Any) -> Iterator[Record]:
        """Records of metrics that do not apply to this cell."""
        for metric in metrics:
            yield not_applicable(
                self.job.cell.name, self.job.method, self.job.seed, metric, reason,
                protocol={**self.protocol, **protocol},
            )  # fmt: skip


def of_answers(kind: str) -> Callable[[Callable[..., Iterator[Record]]], Callable[[Job, Protocol], Iterator[Record]]]:
    """Decorator of ``(record, found) -> records`` of a question whose arrays are in ``<kind>[@<scale>].npz``.

    The function is called for each guidance scale at which the question was asked; a cell that has no answer gets the
    reason at all metrics of the question instead.
    """

    def decorated(of_arrays: Callable[[Recorder, dict[str, np.ndarray]], Iterator[Record]]) -> Any:
        @wraps(of_arrays)
        def records(job: Job, protocol: Protocol) -> Iterator[Record]:
            for scale in (QUESTIONS[kind].scaled and job.cell.guidance_scales) or [None]:
                record = Recorder(job, Stage(kind, scale=scale))
                if record.reason is None:
                    yield from of_arrays(record, load_arrays(job.folder / f"{kind}{scale_tag(scale)}.npz"))
                else:
                    yield from record.absent(metrics_of(kind, expected=False), record.reason)

        return records

    return decorated
