"""Predicted seconds: on CPUs from committed results, on any device from FLOPs and rates."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmark.cost.rates import Rates
from benchmark.errors import InputError
from benchmark.results.results_file import read_results
from benchmark.suite.jobs import Job
from benchmark.system.files import read_manifest

RESULTS = Path(__file__).resolve().parents[2] / "results"
PRIOR = 30.0
"""Weight of the prediction in seconds; measured time counts more once it is longer."""


@dataclass(frozen=True)
class Work:
    """A number of calls of a network.

    Attributes:
        flops: Floating-point operations, a multiply-add as two; those of convolutions and matrix products.
        operators: Tensor operators, each a launch on a GPU.
        half: Whether they run in half precision.
    """

    flops: float
    operators: float
    half: bool = False


@dataclass(frozen=True)
class CellCost:
    """Cost of one cell with one seed.

    Attributes:
        work: Work by job, ``train`` and ``evaluate``.
        disk: Bytes written by each, uncompressed, with resume points, which are deleted when training ends.
        memory: Peak bytes of each: weights, gradients, optimiser, average and activations.
    """

    work: Mapping[str, Sequence[Work]]
    disk: Mapping[str, float]
    memory: Mapping[str, float]

    def flops(self, part: str) -> float:
        """Floating-point operations of a part."""
        return sum(work.flops for work in self.work.get(part, ()))

    def seconds(self, part: str, rates: Rates) -> float:
        """Seconds of a part on one device."""
        full, half = (rates.train, rates.train_half) if part == "train" else (rates.evaluate, rates.evaluate)
        return sum(
            max(work.flops / (half if work.half else full), work.operators * rates.operator)
            for work in self.work.get(part, ())
        )


def device_seconds(costs: Mapping[str, CellCost | str], rates: Rates) -> dict[tuple[str, str], float]:
    """Seconds on one device by (cell, part), for the counted cells."""
    return {
        (name, part): cost.seconds(part, rates)
        for name, cost in costs.items()
        if isinstance(cost, CellCost)
        for part in ("train", "evaluate")
    }


def predicted_seconds(suite: str) -> dict[tuple[str, str], float]:
    """CPU seconds by (cell, part), from the committed table of the suite; empty if there is none."""
    paths = [folder / f"{suite}.json" for folder in (RESULTS, RESULTS / "smoke")]
    try:
        results = read_results(next(path for path in paths if path.is_file()))
    except (InputError, StopIteration):
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


def filled_in(predicted: dict[tuple[str, str], float], jobs: list[Job]) -> dict[tuple[str, str], float]:
    """``predicted``, with the mean of a part's known costs for jobs without a prediction."""
    known = {part: [s for (_, of), s in predicted.items() if of == part and s > 0] for part in ("train", "evaluate")}
    lacking = {(job.cell.name, job.part) for job in jobs} - predicted.keys()
    return {**predicted, **{key: mean(known[key[1]]) for key in lacking if known[key[1]]}}


def remaining_seconds(
    jobs: list[Job], predicted: dict[tuple[str, str], float], workers: int, done: dict[str, float] | None = None
) -> float | None:
    """Wall-clock seconds of ``jobs`` on ``workers`` processes; None if a job's cost is unknown.

    Args:
        jobs: Jobs left to do, needs first.
        predicted: See ``predicted_seconds``.
        workers: Parallel processes.
        done: Finished share in [0, 1] of each running job.
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


@dataclass(frozen=True)
class Seen:
    """Time that a run has measured for a job.

    Attributes:
        seconds: Wall-clock seconds.
        share: Share of the job done in that time, in [0, 1]; None if unknown.
    """

    seconds: float
    share: float | None = 1.0


def pace(jobs: Sequence[Job], predicted: Mapping[tuple[str, str], float], seen: Mapping[str, Seen]) -> float:
    """Measured seconds for each predicted second of a run, ``(W + measured) / (W + predicted)``.

    ``W`` is ``PRIOR``. A job of unknown share counts once it has taken longer than all of it should at the pace of
    the others.
    """
    known = [(seen[job.name], predicted.get((job.cell.name, job.part), 0.0)) for job in jobs if job.name in seen]
    took = PRIOR + sum(at.seconds for at, cost in known if cost and at.share is not None)
    expected = PRIOR + sum(cost * at.share for at, cost in known if at.share is not None)
    late = [
        (at.seconds, cost) for at, cost in known if at.share is None and cost and at.seconds > cost * took / expected
    ]
    return (took + sum(seconds for seconds, _ in late)) / (expected + sum(cost for _, cost in late))


def time_left(
    jobs: list[Job],
    predicted: Mapping[tuple[str, str], float],
    workers: int,
    done: Mapping[str, float],
    seen: Mapping[str, Seen],
) -> float | None:
    """Wall-clock seconds left of a run at its measured pace; None if a job's cost is unknown.

    Without a prediction, the run's finished jobs predict the rest.

    Args:
        jobs: All jobs that have not failed, needs first.
        predicted: See ``predicted_seconds``.
        workers: Parallel processes.
        done: Finished share in [0, 1] of each job, if known and not 0.
        seen: Measured times by job.
    """
    if not predicted:
        predicted = {
            (j.cell.name, j.part): seen[j.name].seconds for j in jobs if j.name in seen and done.get(j.name) == 1
        }
    predicted = filled_in(dict(predicted), jobs)
    slower = pace(jobs, predicted, seen)
    costs = {key: slower * seconds for key, seconds in predicted.items()}
    shares = {}
    for job in jobs:
        cost, at = costs.get((job.cell.name, job.part), 0.0), seen.get(job.name)
        guess = min(1.0, at.seconds / cost) if at is not None and at.share is None and cost else 0.0
        shares[job.name] = done.get(job.name, guess)
    return remaining_seconds([job for job in jobs if done.get(job.name) != 1], costs, workers, shares)


class TimeLeft:
    """Seconds left of a run, see ``time_left``; times of finished jobs are read once.

    Args:
        predicted: See ``predicted_seconds``.
        workers: Parallel processes.
        before: Jobs that an earlier run finished, perhaps on a busier machine; their times count only where there is
            no prediction.
    """

    def __init__(
        self, predicted: Mapping[tuple[str, str], float], workers: int, before: Collection[str] = frozenset()
    ) -> None:
        self._predicted, self._workers = predicted, workers
        self._ignored = frozenset(before) if predicted else frozenset()
        self._finished: dict[str, Seen] = {}

    def __call__(self, jobs: list[Job], done: Mapping[str, float], running: Mapping[str, Seen]) -> float | None:
        """Seconds left for jobs that have not failed, from finished shares and times of running ones."""
        for job in jobs:
            if done.get(job.name) == 1 and job.name not in self._finished and job.name not in self._ignored:
                manifests = [read_manifest(stage.manifest(job.folder)) or {} for stage in job.stages]
                self._finished[job.name] = Seen(sum(float(m.get("seconds") or 0) for m in manifests))
        return time_left(jobs, self._predicted, self._workers, done, {**running, **self._finished})


def most_urgent_first(jobs: list[Job], predicted: dict[tuple[str, str], float]) -> list[Job]:
    """Sort jobs by the longest path from the start of each to the end of all jobs that wait for it.

    A job of unknown cost counts as one second, so that jobs needed by many still come first.
    """
    ahead: dict[str, float] = {}
    for job in reversed(jobs):  # needs come first
        way = ahead.get(job.name, 0.0) + predicted.get((job.cell.name, job.part), 1.0)
        ahead[job.name] = way
        for name in (*job.needs, *job.after):
            ahead[name] = max(ahead.get(name, 0.0), way)
    return sorted(jobs, key=lambda job: -ahead[job.name])


def clock(seconds: float | None) -> str:
    """``1:02:03``, ``2:03``, from 100 hours on ``1,234 h``, or ``?`` if unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours:,} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
