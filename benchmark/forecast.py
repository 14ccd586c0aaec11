"""What a suite would do, and what it would cost, before anything is run."""

from benchmark.costs import predicted_seconds, remaining_seconds
from benchmark.plan import Job
from benchmark.progress import clock
from benchmark.suite import Suite


def show_plan(jobs: list[Job], suite: Suite, workers: int) -> None:
    """Print the jobs of a suite in order, with what each waits for and how long it will take."""
    predicted = predicted_seconds(suite.name)
    print(f"suite {suite.name}: {len(jobs)} jobs on {workers} processes")
    for job in jobs:
        seconds = predicted.get((job.cell.name, job.part))
        state = "finished" if job.finished else f"{clock(seconds)} CPU"
        needs = f"  after {', '.join(job.needs)}" if job.needs else ""
        print(f"  {job.name:<44} {state:>12}  {', '.join(s.name for s in job.stages)}{needs}")
    left = remaining_seconds([job for job in jobs if not job.finished], predicted, workers)
    print(f"predicted: {clock(left)}" + ("" if left is not None else " (no committed results to predict from)"))
