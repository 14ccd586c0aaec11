"""All records of a cell."""

from dataclasses import asdict
from typing import Any

from benchmark.records.classification import classification_records
from benchmark.records.cost import cost_records
from benchmark.records.density import (
    calibration_records,
    denoising_records,
    diagnostic_records,
    gradient_records,
    likelihood_records,
)
from benchmark.records.generation import generation_records
from benchmark.results.per_class import FILE as PER_CLASS
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.system.files import write_json


def write_records(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Compute the records of a job's cell and write ``record.json``."""
    records = [record for part in PARTS for record in part(job, protocol)]
    write_json(job.folder / "record.json", [asdict(record) for record in records])
    return {"outputs": ["record.json", PER_CLASS]}


ANSWERS = (
    classification_records,
    likelihood_records,
    denoising_records,
    calibration_records,
    diagnostic_records,
    gradient_records,
)
PARTS = (*ANSWERS, generation_records, cost_records)
