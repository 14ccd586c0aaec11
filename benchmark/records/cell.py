"""All records of a cell."""

from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from typing import Any

from benchmark.records.cost import cost_records
from benchmark.records.generation import generation_records
from benchmark.results.per_class import FILE as PER_CLASS
from benchmark.results.record import Record
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.system.files import write_json


def write_records(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Compute the records of a job's cell and write ``record.json``."""
    records = [*answer_records(job, protocol), *generation_records(job, protocol), *cost_records(job, protocol)]
    if protocol.part != "test":
        for record in records:
            record.protocol["part"] = protocol.part
    write_json(job.folder / "record.json", [asdict(record) for record in records])
    return {"outputs": ["record.json", PER_CLASS]}


def answer_records(job: Job, protocol: Protocol) -> Iterator[Record]:
    """Records of the questions that all cells are asked, with the reason where a cell has no answer, and of others that
    this one was asked."""
    kinds = {stage.kind for stage in job.stages}
    for kind, question in QUESTIONS.items():
        if question.always or kind in kinds:
            module, _, name = question.records.rpartition(".")
            yield from getattr(import_module(module), name)(job, protocol)
