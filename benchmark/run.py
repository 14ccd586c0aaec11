"""python -m benchmark.run --suite NAME: train, sample, evaluate and tabulate; what is finished is not done again."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.arguments import Parser
from benchmark.costs import most_urgent_first, predicted_seconds, remaining_seconds
from benchmark.errors import INCOMPLETE, INTERRUPTED, OK, TERMINATED, InputError, command
from benchmark.execute.local import LocalEngine
from benchmark.files import write_json
from benchmark.forecast import show_plan
from benchmark.plan import Job, arguments, cached_resolution, configuration_digest, plan
from benchmark.progress import LiveView, PlainView, State
from benchmark.record import Record, Results
from benchmark.report import write_report
from benchmark.stages import read_manifest
from benchmark.suite import NAME, PAPER, Suite, check_seeds, load_suite, suites
from benchmark.table_rows import failed_records, headline_numbers, read_records
from benchmark.tables import to_markdown, write_tables
from benchmark.yaml_files import parse_text

LEAST_FREE_BYTES = 100 * 2**20
MOST_WORKERS = 1024


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.run", description=__doc__)
    p.add_argument("--suite", metavar="NAME", required=True, help=f"suite to run; there are: {', '.join(suites())}")
    p.add_argument("--budget", metavar="NAME", default=PAPER, help="a smaller budget that the suite states, e.g. small")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a setting of every method")
    p.add_argument("--name", metavar="NAME", help="name in results; needed where --set changes what is compared")
    p.add_argument("--only", metavar="CELL", action="append", help="tabulate this cell alone; may be repeated")
    p.add_argument("--seeds", metavar="0,1,2", help="seeds, separated by commas; the suite's own by default")
    p.add_argument("--out", metavar="DIR", type=Path, help="folder of the run (default runs/NAME)")
    p.add_argument("--data-root", metavar="DIR", help="folder of the data sets (default $DIFFCLASS_DATA, else data)")
    p.add_argument("--fresh", action="store_true", help="forget what an earlier run in the folder finished")
    p.add_argument("--dry-run", action="store_true", help="show jobs, order and predicted time, and do nothing")
    p.add_argument("--jobs", action="store_true", help="with --dry-run, also every job and what it waits for")
    p.add_argument("--workers", metavar="N", type=int, help="processes side by side (default one per GPU or core)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Run a suite; returns the exit code."""
    options = parser().parse_args(argv)
    if options.name is not None and not NAME.fullmatch(options.name):
        raise InputError(f"--name must be 1 to 64 letters, digits, dots, dashes or underscores, got {options.name!r}")
    changes = _changes(options.set)
    if changes and options.name is None:
        raise InputError("--set makes another suite of it; give that one a name in results with --name NAME")
    suite = load_suite(options.suite, options.budget, changes, options.name)
    seeds = suite.seeds if options.seeds is None else _seeds(options.seeds)
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers must be at least 1, got {options.workers}")
    if options.workers is not None and options.workers > MOST_WORKERS:
        raise InputError(f"--workers must be at most {MOST_WORKERS}, got {options.workers}")
    only = _checked(suite, options.only)
    if options.data_root is not None:
        if not Path(options.data_root).is_dir():
            raise InputError(f"--data-root: no folder at {options.data_root}")
        os.environ["DIFFCLASS_DATA"] = str(Path(options.data_root).absolute())  # the workers inherit it
    out = options.out or Path("runs") / suite.name
    engine = LocalEngine(options.workers)
    with engine:
        if options.dry_run:
            jobs = _jobs(suite, engine, out, seeds, write=False)
            show_plan(_chosen(jobs, only), suite, engine.workers, options.jobs)
            return OK
        with _owned(out):
            jobs = _chosen(_jobs(suite, engine, out, seeds, write=True), only)
            if options.fresh:
                for folder in {job.cell.name for job in jobs}:
                    shutil.rmtree(out / folder, ignore_errors=True)
            return _execute(suite, engine, jobs, out)


def _changes(words: list[str]) -> dict[str, Any]:
    """Settings by dotted key, from ``KEY=VALUE`` with YAML values."""
    changes = {}
    for word in words:
        key, given, value = word.partition("=")
        if not given or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
            raise InputError(f"--set takes KEY=VALUE with a dotted key such as trainer.max_steps=100, got {word!r}")
        changes[key] = parse_text(value, f"--set {key}")
    return changes


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    return check_seeds([int(w) if w.isdecimal() else w for w in words], "--seeds")


def _checked(suite: Suite, only: list[str] | None) -> list[str]:
    """Names of the cells asked for; all where none is."""
    for name in only or ():
        if name not in suite.cells:
            raise InputError(f"--only: no cell {name!r} in suite {suite.name}; there are: {', '.join(suite.cells)}")
    return only or list(suite.cells)


def _chosen(jobs: list[Job], cells: list[str]) -> list[Job]:
    """The jobs of some cells, and the trainings that those need."""
    wanted = {job.name for job in jobs if job.cell.name in cells}
    for job in reversed(jobs):  # needs come first
        if job.name in wanted:
            wanted.update(job.needs)
    return [job for job in jobs if job.name in wanted]


def _jobs(suite: Suite, engine: LocalEngine, out: Path, seeds: list[int], write: bool) -> list[Job]:
    """The suite's jobs; configurations are resolved once and remembered until a file they follow from changes."""
    key = configuration_digest(suite)
    resolved = cached_resolution(out / "plan.json", key)
    if resolved is None:
        cells = {
            name: arguments(cell, 0, Path(name), {key: Path(other) for key, other in cell.needs.items()})
            for name, cell in suite.cells.items()
            if cell.config is not None
        }
        resolved = engine.resolve(cells, dry=not write)
        if write:
            write_json(out / "plan.json", {"key": key, "resolved": resolved})
    return plan(suite, resolved, out, seeds)


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """Hold the folder of a run for this process alone.

    Raises:
        InputError: If another run holds it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    owner = out / "owner.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        if free < LEAST_FREE_BYTES:
            raise InputError(f"{out} has {free >> 20} MiB free, a run needs {LEAST_FREE_BYTES >> 20}; choose --out DIR")
        lock = FileLock(out / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        held = read_manifest(owner) or {}
        by = f"process {held.get('pid', '?')} on {held.get('host', '?')} since {held.get('since', '?')}"
        raise InputError(f"{out} is in use by {by}; wait for it or choose another folder with --out") from None
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            write_json(owner, {"pid": os.getpid(), "host": platform.node(), "since": since})
        except OSError as error:
            raise InputError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _execute(suite: Suite, engine: LocalEngine, jobs: list[Job], out: Path) -> int:
    finished = {job.name for job in jobs if job.finished}
    todo = [job for job in jobs if job.name not in finished]
    predicted = predicted_seconds(suite.name)
    state = State(
        jobs,
        finished,
        left=lambda left, done: remaining_seconds(left, predicted, engine.workers, done),
        summary=lambda job: headline_numbers(job) if job.part == "evaluate" else "",
    )
    signals: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if signals:
            os._exit(128 + number)  # asked twice: at once; files are whole all the same
        signals.append(number)
        engine.stop()
        print("stopping: running jobs save their state (again to stop at once)", file=sys.stderr, flush=True)

    results: dict[str, dict[str, Any]] = {}
    if todo:
        before = {}
        print(f"suite {suite.name}: {len(todo)} of {len(jobs)} jobs to do on {engine.workers} processes, in {out}")
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        view = LiveView(state) if sys.stdout.isatty() else PlainView(state)
        with view:
            results = engine.run(most_urgent_first(todo, predicted), suite.protocol, view)
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        again = " ".join(["python -m benchmark.run", *sys.argv[1:]])
        print(f"stopped; finished work is kept, go on with: {again}", file=sys.stderr)
        return TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED
    return _tabulate(suite, jobs, results, out)


def _tabulate(suite: Suite, jobs: list[Job], results: dict[str, dict[str, Any]], out: Path) -> int:
    records: list[Record] = []
    failures = {name: r["error"] for name, r in results.items() if r["status"] == "failed"}
    for job in jobs:
        if job.part == "evaluate":
            error = failures.get(job.name)
            records += read_records(job) if error is None else failed_records(job, error)
    cells = [name for name in suite.cells if any(r.cell == name for r in records)]
    floors = {name for name, cell in suite.cells.items() if cell.floor}
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(), records=records)
    write_tables(out, table, cells, floors)
    print(to_markdown(table, cells=cells, floors=floors))
    print(f"\nresults: {out / 'results.md'}, {out / 'results.json'}\nreport:  {write_report(out, cells)}")
    for name, error in failures.items():
        print(f"failed: {name}: {error} (log: {out / name.rsplit('/', 1)[0] / 'log'})", file=sys.stderr)
    return INCOMPLETE if failures else OK


def _commit() -> str:
    """The source's commit, marked if the working tree differs; empty outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def _environment() -> dict[str, Any]:
    versions = {}
    for package in ("torch", "lightning", "torchmetrics", "torch-fidelity", "scikit-learn", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpus = LocalEngine().gpus
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "device": f"{len(gpus)} GPU" if gpus else "CPU",
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
