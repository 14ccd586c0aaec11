"""Forecast of a suite's jobs and their costs before a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.cost.alike import count_all
from benchmark.cost.rates import CPU, GPU, rates
from benchmark.cost.times import (
    CellCost,
    TimeLeft,
    clock,
    device_seconds,
    predicted_seconds,
    remaining_seconds,
)
from benchmark.errors import shown
from benchmark.suite.jobs import Job
from benchmark.suite.suite import Suite

GPUS = 8
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
COLUMNS = ("cell", "seeds", "stages", "train", "evaluate", "1 GPU", f"{GPUS} GPUs", "CPU", "disk", "memory")
UNITS = ("", "", "done", "FLOP", "FLOP", "hours", "hours", "h:m:s", "", "")


@dataclass(frozen=True)
class Row:
    """A cell with all its seeds; None for an unknown value.

    Attributes:
        name: Name of the cell.
        seeds: Number of seeds; in the total the largest of any cell.
        done: Finished stages.
        stages: All stages.
        train: FLOPs of its training; 0 if it uses another's weights.
        evaluate: FLOPs of its evaluation.
        one_gpu: Seconds on one GPU.
        gpus: Seconds on ``GPUS`` of them, a job on each; evaluations wait for trainings.
        cpu: Seconds on one process here.
        disk: Bytes written, uncompressed, resume points and shards of samples included.
        memory: Peak bytes of a job.
    """

    name: str
    seeds: int
    done: int
    stages: int
    train: float | None
    evaluate: float | None
    one_gpu: float | None
    gpus: float | None
    cpu: float | None
    disk: float | None
    memory: float | None


def forecast(
    jobs: Sequence[Job], costs: Mapping[str, CellCost | str], on_cpu: Mapping[tuple[str, str], float]
) -> list[Row]:
    """A row for each cell and, last, their total; its time is that of all jobs in their order.

    Args:
        jobs: All jobs, needs first.
        costs: See ``counting.count``.
        on_cpu: CPU seconds by (cell, part).
    """
    on_gpu = device_seconds(costs, rates(GPU))
    rows = [_row(name, [j for j in jobs if j.cell.name == name], costs, on_gpu, on_cpu) for name in _names(jobs)]
    known = [row for row in rows if row.disk is not None]
    counted = [job for job in jobs if (job.cell.name, job.part) in on_gpu]
    total = Row(
        "total",
        max((row.seeds for row in rows), default=0),
        sum(row.done for row in rows),
        sum(row.stages for row in rows),
        sum(row.train for row in known),
        sum(row.evaluate for row in known),
        remaining_seconds(counted, on_gpu, 1),
        remaining_seconds(counted, on_gpu, GPUS),
        remaining_seconds(list(jobs), on_cpu, 1),
        sum(row.disk for row in known),
        max((row.memory for row in known), default=0.0),
    )
    return [*rows, total]


def _names(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.cell.name for job in jobs))


def _row(
    name: str,
    jobs: list[Job],
    costs: Mapping[str, CellCost | str],
    on_gpu: Mapping[tuple[str, str], float],
    on_cpu: Mapping[tuple[str, str], float],
) -> Row:
    stages = [stage.completed(job.folder) is not None for job in jobs for stage in job.stages]
    cost, parts = costs[name], [job.part for job in jobs]
    seeds, cpu = len({job.seed for job in jobs}), remaining_seconds(jobs, on_cpu, 1)
    if isinstance(cost, str):
        return Row(name, seeds, sum(stages), len(stages), None, None, None, None, cpu, None, None)
    flops = {part: parts.count(part) * cost.flops(part) for part in ("train", "evaluate")}
    return Row(
        name, seeds, sum(stages), len(stages), flops["train"], flops["evaluate"],
        remaining_seconds(jobs, on_gpu, 1), remaining_seconds(jobs, on_gpu, GPUS), cpu,
        sum(cost.disk.get(part, 0.0) for part in parts),
        max((cost.memory.get(part, 0.0) for part in parts), default=0.0),
    )  # fmt: skip


def show_plan(jobs: list[Job], suite: Suite, engine: Any, each_job: bool = False) -> None:
    """Print the cost of each of a suite's cells, the total, and the time left.

    Args:
        jobs: All jobs, needs first.
        suite: Their suite.
        engine: Engine whose processes count.
        each_job: Whether to list the jobs and their needs too.
    """
    known = predicted_seconds(suite.name)
    finished = {job.name for job in jobs if job.finished}
    print(f"suite {suite.name}: {len(jobs)} jobs on {engine.workers} processes, {len(finished)} finished", flush=True)
    if each_job:
        for job in jobs:
            print(_job_line(job, job.name in finished, known))
    print("counting operations", flush=True)
    costs = count_all(suite, jobs, engine)
    gpu, cpu = rates(GPU), rates(CPU)
    on_gpu = device_seconds(costs, gpu)
    on_cpu = known or device_seconds(costs, cpu)
    rows = forecast(jobs, costs, on_cpu)
    print(table(rows))
    unknown = {row.name: costs[row.name] for row in rows[:-1] if row.disk is None}
    for name, reason in unknown.items():
        print(shown(f"not counted, and not in the total: {name}: {reason}"))
    print(
        f"hours: a job on each GPU at the rates of {gpu.device}: {gpu.origin}; "
        "disk: resume points and shards of samples included, which go when training or sampling ends"
    )
    source = "committed results: measured" if known else f"the rates of {cpu.device}: {cpu.origin}"
    print(f"CPU: from {source}")
    left = [job for job in jobs if job.name not in finished]
    counted = [job for job in left if (job.cell.name, job.part) in on_gpu]
    alone, together = (hours(remaining_seconds(counted, on_gpu, gpus)) for gpus in (1, GPUS))
    print(f"left to do: {alone} hours on 1 GPU, {together} hours on {GPUS}")
    here = TimeLeft(on_cpu, engine.workers)(jobs, dict.fromkeys(finished, 1.0), {})
    print(f"predicted: {clock(here)} on {engine.workers} CPU processes")


def _job_line(job: Job, finished: bool, on_cpu: Mapping[tuple[str, str], float]) -> str:
    state = "finished" if finished else f"{clock(on_cpu.get((job.cell.name, job.part)))} CPU"
    needs = f"  after {', '.join(job.needs)}" if job.needs else ""
    return f"  {job.name:<44} {state:>12}  {', '.join(s.name for s in job.stages)}{needs}"


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text under names and units, without columns of unknown values."""
    lines = [COLUMNS, UNITS, *map(_cells, rows)]
    shown = [i for i in range(len(COLUMNS)) if any(line[i] != "?" for line in lines[2:])]
    widths = [max(len(line[i]) for line in lines) for i in shown]
    return "\n".join(
        "  ".join(line[i].ljust(w) if i == 0 else line[i].rjust(w) for i, w in zip(shown, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name, str(row.seeds), f"{row.done}/{row.stages}", si(row.train), si(row.evaluate),
        hours(row.one_gpu), hours(row.gpus), clock(row.cpu), si(row.disk, "B"), si(row.memory, "B"),
    )  # fmt: skip


def si(value: float | None, unit: str = "") -> str:
    """Three digits, a prefix and a unit: ``10.9 EB``; ``-`` for 0, ``?`` if unknown."""
    if value is None:
        return "?"
    if value == 0:
        return "-"
    exponent = 0
    while float(f"{value:.3g}") >= 1000 and exponent < len(PREFIXES) - 1:
        value, exponent = value / 1000, exponent + 1
    return f"{float(f'{value:.3g}'):g} {PREFIXES[exponent]}{unit}".rstrip()


def hours(seconds: float | None) -> str:
    """``41.2``, or ``<0.01``; ``?`` if unknown."""
    if seconds is None:
        return "?"
    value = seconds / 3600
    return f"{value:.2f}" if value >= 0.01 else "<0.01" if value > 0 else "-"
