"""Carrying out a suite in a folder: which jobs, what is left of them, and the tables of what they found."""

import dataclasses
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.costs import TimeLeft, filled_in, most_urgent_first, predicted_seconds
from benchmark.differences import seed_list
from benchmark.errors import INCOMPLETE, INTERRUPTED, OK, TERMINATED, InputError, escaped, tell
from benchmark.execute.journal import Journal, lives, read_progress
from benchmark.execute.lease import clear
from benchmark.files import sweep, write_text
from benchmark.given_rows import check_given, given_rows
from benchmark.per_class import write_per_class
from benchmark.plan import Job, plan
from benchmark.plan_file import write_plan
from benchmark.progress import LiveView, PlainView, State
from benchmark.protocol import REFERENCE
from benchmark.record import Record, Results
from benchmark.report import write_report
from benchmark.resolution import resolved
from benchmark.rows import rows
from benchmark.signals import ENDING, end
from benchmark.suite import Cell, Suite, selected
from benchmark.table_rows import failed_records, headline_numbers, read_records
from benchmark.tables import to_markdown, write_tables

PARTIAL = "partial.md"
"""What a run that was stopped has finished."""


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
    wanted = {job.name for job in jobs if job.cell.name in cells}
    for job in reversed(jobs):  # needs come first
        if job.name in wanted:
            wanted.update(job.needs)
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
            network = stage.name.partition("+")[2].partition("@")[0]
            if network not in ("", REFERENCE, *waiting) and stage.completed(job.folder) is None:
                waiting.add(network)
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
    _tabulate_partly(suite, engine, jobs, out)
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


def tabulate(suite: Suite, engine: Any, jobs: list[Job], results: dict[str, dict[str, Any]], out: Path) -> int:
    """Write and print the tables of all that is finished of ``jobs``, and what failed now; returns the exit code.

    Args:
        suite: The suite.
        engine: What carried out the jobs.
        jobs: Those of every cell and seed, not of what was asked for alone.
        results: Of the jobs that were carried out now.
        out: Folder of the run.
    """
    failures = {name: r["error"] for name, r in results.items() if r["status"] == "failed"}
    records: list[Record] = []
    shown: list[Job] = []
    for job in jobs:
        if job.part == "evaluate":
            error = failures.get(job.name)
            of_job = read_records(job) if error is None else failed_records(job, error)
            records += of_job
            shown += [job] if of_job else []
    cells = [name for name in suite.cells if any(job.cell.name == name for job in shown)]
    floors = _floors(suite)
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(engine), records=records)
    write_tables(out, table, cells, floors)
    write_per_class(out, shown, rows(table, cells))
    (out / PARTIAL).unlink(missing_ok=True)
    print(to_markdown(table, cells=cells, floors=floors))
    print(f"\n{_told_apart(shown, results)}")
    print(f"results: {escaped(out / 'results.md')}, {escaped(out / 'results.json')}")
    print(f"report:  {escaped(write_report(out, cells, floors))}")
    for name, error in failures.items():
        tell(f"failed: {name}: {error} (log: {out / name.rsplit('/', 1)[0] / 'log'})")
    return INCOMPLETE if failures else OK


def _told_apart(shown: list[Job], results: dict[str, dict[str, Any]]) -> str:
    """How many evaluations are in the tables, and which of them were carried out now, where not all were."""
    now = [job for job in shown if job.name in results]
    parts = [f"{len(shown)} by cell and seed, {len(now)} carried out now"]
    if 0 < len(now) < len(shown):
        cells = dict.fromkeys(job.cell.name for job in now)
        parts.append(f"{', '.join(cells)} with {seed_list(job.seed for job in now)}")
    return "rows:    " + ": ".join(parts)


def _tabulate_partly(suite: Suite, engine: Any, jobs: list[Job], out: Path) -> None:
    """Write what is finished of a run that was stopped; the tables of an earlier whole run stay as they are."""
    found = [(job, read_records(job)) for job in jobs if job.part == "evaluate"]
    records = [record for _, of_job in found for record in of_job]
    if not records:
        return
    cells = [name for name in suite.cells if any(job.cell.name == name for job, _ in found)]
    unfinished = [f"{job.cell.name} (seed {job.seed})" for job, of_job in found if not of_job]
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(engine), records=records)
    write_text(out / PARTIAL, to_markdown(table, cells=cells, floors=_floors(suite), unfinished=unfinished))


def _floors(suite: Suite) -> set[str]:
    return {name for name, cell in suite.cells.items() if cell.floor}


def _commit() -> str:
    """The source's commit, marked if the working tree differs; empty outside a checkout."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # not another's

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, env=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or it is the checkout of something around this
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return ""


def _environment(engine: Any) -> dict[str, Any]:
    versions = {}
    for package in ("torch", "lightning", "torchmetrics", "torch-fidelity", "scikit-learn", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        **engine.hardware,
        **versions,
    }
