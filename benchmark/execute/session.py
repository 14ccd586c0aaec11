"""Carrying out a suite in a folder: which jobs, what is left of them, and the tables of what they found."""

import dataclasses
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmark.cost.times import TimeLeft, filled_in, most_urgent_first, predicted_seconds
from benchmark.errors import INTERRUPTED, TERMINATED, InputError, escaped, tell
from benchmark.execute.given_rows import check_given, given_rows
from benchmark.execute.journal import Journal, lives, read_progress
from benchmark.execute.lease import clear
from benchmark.execute.progress import LiveView, PlainView, State
from benchmark.execute.tabulate import headline_numbers, tabulate_partly
from benchmark.suite.cells import Cell
from benchmark.suite.graph import closure
from benchmark.suite.jobs import Job, write_plan
from benchmark.suite.plan import plan
from benchmark.suite.protocol import REFERENCE
from benchmark.suite.resolution import resolved
from benchmark.suite.suite import Suite, selected
from benchmark.system.files import sweep
from benchmark.system.signals import ENDING, end


def jobs_of(
    suite: Suite, engine: Any, out: Path, seeds: list[int], only: list[str], write: bool, dry: bool = False
) -> tuple[list[Job], list[Job]]:
    """The jobs asked for, and those of every cell with every seed of the suite or of the run's folder.

    Where the configurations of cells that were not asked for cannot be resolved, these are left out.

    Args:
        suite: The suite.
        engine: Resolves configurations that are not remembered.
        out: Folder of the run.
        seeds: Seeds of the cells that have no fixed one.
        only: Names of cells.
        write: Whether to record the jobs as what the run sets out to do.
        dry: Whether nothing will be run; see ``resolution.resolved``.
    """
    try:
        key, configurations = resolved(suite, engine, out, dry)
    except InputError:
        part = selected(suite, only)
        if part.cells.keys() == suite.cells.keys():
            raise
        return jobs_of(part, engine, out, seeds, only, write, dry)
    jobs = chosen(plan(suite, configurations, out, seeds), only)
    if write:
        todo = {job.cell.name: job.cell.samples for job in jobs if job.cell.samples is not None and not job.finished}
        check_given(suite, engine, todo)
        write_plan(out, suite.name, key, configurations, jobs)
    return jobs, plan(suite, configurations, out, _all_seeds(suite, out, seeds))


def _all_seeds(suite: Suite, out: Path, asked: list[int]) -> list[int]:
    """The suite's seeds, those asked for, and others that the run in the folder has."""
    found = {int(path.name[4:]) for path in out.glob("*/seed*") if path.name[4:].isdecimal()}
    fixed = {cell.seed for cell in suite.cells.values()}
    return list(dict.fromkeys([*suite.seeds, *asked, *sorted(found - fixed)]))


def chosen(jobs: list[Job], cells: list[str]) -> list[Job]:
    """The jobs of some cells, and the trainings that those need."""
    wanted = closure({job.name: job.needs for job in jobs}, [job.name for job in jobs if job.cell.name in cells])
    return [job for job in jobs if job.name in wanted]


def with_given(suite: Suite, out: Path) -> Suite:
    """A suite with the rows of samples that were given to its run, but those whose files are gone."""
    rows = {}
    for row, path in given_rows(out).items():
        if row in suite.cells:
            continue
        if Path(path).exists():
            rows[row] = Cell(row, samples=path, seed=0)
        else:
            tell(f"note: row {row} is left out: no samples at {path}")
    return dataclasses.replace(suite, cells={**suite.cells, **rows})


def networks_needed(jobs: list[Job]) -> set[str]:
    """Feature networks, the suite's reference aside, that have something left to look at."""
    waiting: set[str] = set()
    for job in jobs:
        for stage in job.stages:
            if stage.network not in (None, REFERENCE, *waiting) and stage.completed(job.folder) is None:
                waiting.add(stage.network)
    return waiting


def execute(
    suite: Suite, engine: Any, jobs: list[Job], out: Path, check: Callable[[], None]
) -> tuple[dict[str, dict[str, Any]], int | None]:
    """Carry out what is left of ``jobs``.

    Args:
        suite: The suite.
        engine: Who carries them out.
        jobs: In an order in which needs come first.
        out: Folder that is held for them.
        check: Raises if it is held no more.

    Returns:
        Results by name, and the exit code if a signal ended it.
    """
    finished = {job.name for job in jobs if job.finished}
    todo = [job for job in jobs if job.name not in finished]
    _sweep(jobs, out)
    for job in jobs:
        clear(job.folder, job.part)
    if not todo:
        return {}, None
    predicted = predicted_seconds(suite.name)
    state = State(
        jobs,
        finished,
        left=TimeLeft(predicted, engine.workers),
        summary=lambda job: headline_numbers(job) if job.part == "evaluate" else "",
    )
    signals: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if signals:
            end(number)  # asked twice: at once; files are whole all the same
        signals.append(number)
        engine.stop()
        tell("stopping: running jobs save their state (again to stop at once)")

    before = {}
    where = f"on {engine.workers} processes, in {escaped(out)}"
    print(f"suite {suite.name}: {len(todo)} of {len(jobs)} jobs to do {where}")
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in ENDING}
    view = LiveView(state) if sys.stdout.isatty() else PlainView(state)
    journal = Journal([] if engine.leased else todo)  # who holds a lease writes of it himself

    def on_message(message: dict[str, Any]) -> None:
        journal.take(message)
        view(message)

    def watch() -> None:
        check()
        journal.beat()

    try:
        with view:
            results = engine.run(most_urgent_first(todo, filled_in(predicted, jobs)), suite.protocol, on_message, watch)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _sweep(jobs, out)  # after workers that were killed in this run
    if not signals:
        return results, None
    tabulate_partly(suite, engine, jobs, out)
    again = shlex.join(["python", "-m", f"benchmark.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    print(f"stopped; finished work is kept, go on with: {again}", file=sys.stderr)
    return results, TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED


def _sweep(jobs: list[Job], out: Path) -> None:
    """Delete what killed processes left in a run's folder, but where a job goes on elsewhere."""
    busy = {job.folder for job in jobs if lives(read_progress(job.folder, job.part))}
    sweep(out, below=False)
    for job in jobs:
        if job.folder in busy:
            continue
        sweep(job.folder)
        points = list(job.folder.glob("checkpoints/step=*"))
        if points and job.part == "train" and job.finished:
            for point in points:  # killed after its end was on record, a training has not deleted them
                point.unlink(missing_ok=True)


def at_hand(names: Iterable[str]) -> list[str]:
    """Files with the weights of feature networks, downloaded where they were not here.

    Raises:
        InputError: If some cannot be had, or a file does not hold what it should.
    """
    names = [name for name in names if name != REFERENCE]
    if not names:
        return []
    from benchmark.metrics.published_networks import NETWORKS  # heavy

    return [str(NETWORKS[name].weights()) for name in names]
