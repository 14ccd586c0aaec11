"""How long a suite will take, from what its committed results say it took."""

from collections import defaultdict
from pathlib import Path
from statistics import mean

from benchmark.errors import InputError
from benchmark.plan import Job
from benchmark.record import read_results

RESULTS = Path(__file__).resolve().parent.parent / "results"


def predicted_seconds(suite: str) -> dict[tuple[str, str], float]:
    """CPU seconds by (cell, part), from the committed table of the suite; empty if there is none."""
    try:
        results = read_results(RESULTS / f"{suite}.json")
    except InputError:
        return {}
    seen = defaultdict(list)
    for record in results.records:
        if record.metric in ("cpu_seconds/train", "cpu_seconds/total") and record.value is not None:
            seen[record.cell, record.metric].append(record.value)
    means = {key: mean(values) for key, values in seen.items()}
    predicted = {}
    for cell, metric in means:
        train = means.get((cell, "cpu_seconds/train"), 0.0)
        predicted[cell, "train"] = train
        if metric == "cpu_seconds/total":
            predicted[cell, "evaluate"] = means[cell, metric] - train
    return predicted


def remaining_seconds(
    jobs: list[Job], predicted: dict[tuple[str, str], float], workers: int, done: dict[str, float] | None = None
) -> float | None:
    """Wall-clock seconds that ``jobs`` will take on ``workers`` processes; None if a job's cost is not known.

    Args:
        jobs: What is left to do, in an order in which needs come first.
        predicted: See ``predicted_seconds``.
        workers: Processes side by side.
        done: Share in [0, 1] of each running job that is done.
    """
    done = done or {}
    try:
        costs = {job.name: predicted[job.cell.name, job.part] * (1 - done.get(job.name, 0.0)) for job in jobs}
    except KeyError:
        return None
    longest: dict[str, float] = {}
    for job in jobs:
        longest[job.name] = costs[job.name] + max((longest.get(n, 0.0) for n in job.needs), default=0.0)
    return max([sum(costs.values()) / workers, *longest.values()], default=0.0)


def most_urgent_first(jobs: list[Job], predicted: dict[tuple[str, str], float]) -> list[Job]:
    """``jobs`` by the longest way from the start of each to the end of all that waits for it.

    A job whose cost is not known counts as one second, so that what much else waits for still comes first.
    """
    ahead: dict[str, float] = {}
    for job in reversed(jobs):  # needs come first
        way = ahead.get(job.name, 0.0) + predicted.get((job.cell.name, job.part), 1.0)
        ahead[job.name] = way
        for name in (*job.needs, *job.after):
            ahead[name] = max(ahead.get(name, 0.0), way)
    return sorted(jobs, key=lambda job: -ahead[job.name])
