"""Run of a suite in a folder: its jobs, their execution and the weights that they need."""

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
from benchmark.execute.journal import Journal, is_alive, read_progress
from benchmark.execute.lease import clear
from benchmark.execute.progress import LiveView, PlainView, State
from benchmark.execute.tabulate import headline_numbers, tabulate_partly
from benchmark.suite.cells import Cell
from benchmark.suite.graph import closure
from benchmark.suite.jobs import Job, check_owner, write_plan
from benchmark.suite.plan import plan
from benchmark.suite.protocol import REFERENCE
from benchmark.suite.resolution import resolved
from benchmark.suite.suite import Suite, selected
from benchmark.system.files import sweep
from benchmark.system.signals import ENDING, end


def jobs_of(
    suite: Suite, engine: Any, out: Path, seeds: list[int], only: list[str], write: bool, dry: bool = False
) -> tuple[list[Job], list[Job]]:
    """Selected jobs, and the jobs of every cell with every seed of the suite or of the run's folder.

    Cells that were not selected are left out if their configurations cannot be resolved.

    Args:
        suite: The suite.
        engine: Resolves configurations that are not remembered.
        out: Folder of the run.
        seeds: Seeds of cells without a fixed one.
        only: Names of selected cells.
        write: Whether to write the run's plan.
        dry: Whether nothing will be run; see ``resolution.resolved``.

    Raises:
        InputError: If the folder is of another suite, or something cannot be used.
    """
    check_owner(out, suite.name)
    try:
        key, configurations = resolved(suite, engine, out, dry)
    except InputError:
        part = selected(suite, only)
        if part.cells.keys() == suite.cells.keys():
            raise
        return jobs_of(part, engine, out, seeds, only, write, dry)
    every_seed = _all_seeds(suite, out, seeds)
    every = plan(suite, configurations, out, every_seed)
    jobs = chosen(every if every_seed == seeds else plan(suite, configurations, out, seeds), only)
    if write:
        todo = {job.cell.name: job.cell.samples for job in jobs if job.cell.samples is not None and not job.finished}
        check_given(suite, engine, todo)
        write_plan(out, suite.name, key, configurations, jobs)
    return jobs, every


def _all_seeds(suite: Suite, out: Path, asked: list[int]) -> list[int]:
    """The suite's seeds, the selected ones, and others in the run's folder."""
    found = {int(path.name[4:]) for path in out.glob("*/seed*") if path.name[4:].isdecimal()}
    fixed = {cell.seed for cell in suite.cells.values()}
    return list(dict.fromkeys([*suite.seeds, *asked, *sorted(found - fixed)]))


def chosen(jobs: list[Job], cells: list[str]) -> list[Job]:
    """Jobs of some cells, and the trainings that they need."""
    wanted = closure({job.name: job.needs for job in jobs}, [job.name for job in jobs if job.cell.name in cells])
    return [job for job in jobs if job.name in wanted]


def with_given(suite: Suite, out: Path) -> Suite:
    """A suite with the given rows of its run, without those whose files are gone."""
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
    """Feature networks, without the reference, of unfinished stages."""
    waiting: set[str] = set()
    for job in jobs:
        for stage in job.stages:
            if stage.network not in (None, REFERENCE, *waiting) and stage.completed(job.folder) is None:
                waiting.add(stage.network)
    return waiting


def execute(
    suite: Suite, engine: Any, jobs: list[Job], out: Path, check: Callable[[], None]
) -> tuple[dict[str, dict[str, Any]], int | None]:
    """Carry out the unfinished jobs.

    Args:
        suite: The suite.
        engine: Engine that carries them out.
        jobs: All jobs, needs first.
        out: Locked folder of the run.
        check: Raises if the lock is lost.

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
        left=TimeLeft(predicted, engine.workers, finished),
        summary=lambda job: headline_numbers(job) if job.part == "evaluate" else "",
    )
    signals: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if signals:
            end(number)  # the second signal ends at once; files are whole all the same
        signals.append(number)
        engine.stop()
        tell("stopping: running jobs save their state (again to stop at once)")

    before = {}
    where = f"on {engine.workers} processes, in {escaped(out)}"
    print(f"suite {suite.name}: {len(todo)} of {len(jobs)} jobs to do {where}")
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in ENDING}
    view = LiveView(state) if sys.stdout.isatty() else PlainView(state)
    journal = Journal([] if engine.leased else todo)  # holders of leases write their own progress

    def on_message(message: dict[str, Any]) -> None:
        journal.update(message)
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
    _sweep(jobs, out)  # files of workers that were killed in this run
    if not signals:
        return results, None
    tabulate_partly(suite, engine, jobs, out)
    again = shlex.join(["python", "-m", f"benchmark.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    print(f"stopped; finished work is kept, go on with: {again}", file=sys.stderr)
    return results, TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED


def _sweep(jobs: list[Job], out: Path) -> None:
    """Delete temporary files of killed processes in a run's folder, except those of jobs that run elsewhere."""
    busy = {job.folder for job in jobs if is_alive(read_progress(job.folder, job.part))}
    sweep(out, below=False)
    for job in jobs:
        if job.folder in busy:
            continue
        sweep(job.folder)
        points = list(job.folder.glob("checkpoints/step=*"))
        if points and job.part == "train" and job.finished:
            for point in points:  # left by a training that was killed after it was recorded
                point.unlink(missing_ok=True)


def ensure_weights(names: Iterable[str]) -> list[str]:
    """Paths of the weights of feature networks; downloads missing files.

    Raises:
        InputError: If a download fails, or a file has a wrong digest.
    """
    names = [name for name in names if name != REFERENCE]
    if not names:
        return []
    from benchmark.metrics.published_networks import NETWORKS  # heavy

    return [str(NETWORKS[name].weights()) for name in names]
