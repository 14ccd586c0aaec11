"""python -m benchmark.run --suite NAME: train, sample, evaluate and tabulate; what is finished is not done again."""

import argparse
import difflib
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

from benchmark.costs import most_urgent_first, predicted_seconds, remaining_seconds
from benchmark.errors import INCOMPLETE, INTERRUPTED, OK, TERMINATED, InputError, command
from benchmark.execute.local import LocalEngine
from benchmark.files import write_json
from benchmark.forecast import show_plan
from benchmark.per_class import write_per_class
from benchmark.plan import Job, arguments, cached_resolution, configuration_digest, plan
from benchmark.plan_file import OWNER, PLAN, write_plan
from benchmark.progress import LiveView, PlainView, State
from benchmark.record import Record, Results
from benchmark.report import write_report
from benchmark.sbatch import write_scripts
from benchmark.stages import read_manifest
from benchmark.suite import NAME, PAPER, Suite, check_seeds, load_suite, suites
from benchmark.table_rows import failed_records, headline_numbers, read_records
from benchmark.tables import to_markdown, write_tables
from benchmark.yaml_files import parse_text

LEAST_FREE_BYTES = 100 * 2**20


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmark.run", description=__doc__)
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
    p.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    p.add_argument("--address", metavar="ADDRESS", help="of the Ray cluster: auto, ray://HOST:PORT or HOST:PORT")
    p.add_argument("--job", metavar="CELL/SEED/PART", help="carry out this job alone, e.g. a/seed0/train; no table")
    p.add_argument("--emit-sbatch", metavar="DIR", type=Path, help="write Slurm scripts of the jobs, and do nothing")
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
    _check_engine(options)
    suite = load_suite(options.suite, options.budget, changes, options.name)
    seeds = suite.seeds if options.seeds is None else _seeds(options.seeds)
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers must be at least 1, got {options.workers}")
    only = _checked(suite, options.only)
    if options.data_root is not None:
        if not Path(options.data_root).is_dir():
            raise InputError(f"--data-root: no folder at {options.data_root}")
        os.environ["DIFFCLASS_DATA"] = str(Path(options.data_root).absolute())  # the workers inherit it
    out = options.out or Path("runs") / suite.name
    if options.engine == "ray" or options.emit_sbatch is not None:
        out = out.absolute()  # other machines start elsewhere
    with _engine(options) as engine:
        if options.dry_run:
            show_plan(_jobs(suite, engine, out, seeds, only, write=False), suite, engine.workers, options.jobs)
            return OK
        if options.job is not None:
            _lock(out, seconds=5).release()  # no run of the whole suite is under way
            return _one(suite, engine, _jobs(suite, engine, out, seeds, only, write=True), options.job)
        with _owned(out, engine.workers):
            jobs = _jobs(suite, engine, out, seeds, only, write=True)
            if options.emit_sbatch is not None:
                submit = write_scripts(options.emit_sbatch, jobs, suite.name, _arguments(options, out))
                print(f"nothing was run; submit the jobs with: {submit} [options of sbatch]")
                return OK
            if options.fresh:
                for folder in {job.cell.name for job in jobs}:
                    shutil.rmtree(out / folder, ignore_errors=True)
            results, ended = _execute(suite, engine, jobs, out)
            return _tabulate(suite, engine, jobs, results, out) if ended is None else ended


def _check_engine(options: argparse.Namespace) -> None:
    """Refuse options that would have no effect, or another than they seem to."""
    if options.address is not None and options.engine != "ray":
        raise InputError("--address is of a Ray cluster; add --engine ray")
    if options.workers is not None and options.engine == "ray":
        raise InputError("--workers is for --engine local; Ray places jobs by what its nodes have")
    alone = [name for name in ("dry_run", "job", "emit_sbatch") if getattr(options, name)]
    if len(alone) > 1:
        raise InputError(f"--{alone[0].replace('_', '-')} and --{alone[1].replace('_', '-')} exclude each other")
    if alone and alone != ["dry_run"]:
        name = alone[0].replace("_", "-")
        if options.engine == "ray":
            raise InputError(f"--{name} is for sites without Ray; leave --engine out")
        if options.workers is not None:
            raise InputError(f"--{name} runs nothing side by side; leave --workers out")
        if options.fresh:
            raise InputError(f"--{name} cannot be combined with --fresh; delete the run's folder instead")


def _engine(options: argparse.Namespace) -> Any:
    """The engine that carries out jobs: ``LocalEngine``, or ``RayEngine`` with the same methods."""
    if options.engine == "local":
        return LocalEngine(1 if options.job is not None else options.workers)
    try:
        from benchmark.execute.ray_engine import RayEngine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(
            "--engine ray needs Ray; install it with: pip install -c constraints.txt -e '.[ray]'"
        ) from None
    return RayEngine(options.address)


def _arguments(options: argparse.Namespace, out: Path) -> list[str]:
    """The command line of the same run from any folder."""
    named = Path(options.suite)
    words = ["--suite", str(named.absolute()) if named.suffix else options.suite, "--out", str(out)]
    words += ["--budget", options.budget] if options.budget != PAPER else []
    words += [word for change in options.set for word in ("--set", change)]
    words += ["--name", options.name] if options.name is not None else []
    words += [word for cell in options.only or () for word in ("--only", cell)]
    words += ["--seeds", options.seeds] if options.seeds is not None else []
    data = os.environ.get("DIFFCLASS_DATA")
    return [*words, *(["--data-root", str(Path(data).absolute())] if data else [])]


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


def _jobs(suite: Suite, engine: Any, out: Path, seeds: list[int], only: list[str], write: bool) -> list[Job]:
    """The jobs asked for; configurations are resolved once and remembered until a file they follow from changes."""
    key = configuration_digest(suite)
    resolved = cached_resolution(out / PLAN, key)
    if resolved is None:
        cells = {
            name: arguments(cell, 0, Path(name), {key: Path(other) for key, other in cell.needs.items()})
            for name, cell in suite.cells.items()
            if cell.config is not None
        }
        resolved = engine.resolve(cells, dry=not write)
    jobs = _chosen(plan(suite, resolved, out, seeds), only)
    if write:
        write_plan(out, suite.name, key, resolved, jobs)
    return jobs


def _lock(out: Path, seconds: float = 0) -> Any:
    """The lock of a folder, taken.

    Args:
        out: The folder, which is made if there is none.
        seconds: How long to wait for who holds it.

    Raises:
        InputError: If another run holds it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        if free < LEAST_FREE_BYTES:
            raise InputError(f"{out} has {free >> 20} MiB free, a run needs {LEAST_FREE_BYTES >> 20}; choose --out DIR")
        lock = FileLock(out / ".lock", timeout=seconds)
        lock.acquire()
    except Timeout:
        held = read_manifest(out / OWNER) or {}
        by = f"process {held.get('pid', '?')} on {held.get('host', '?')} since {held.get('since', '?')}"
        raise InputError(f"{out} is in use by {by}; wait for it or choose another folder with --out") from None
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    return lock


@contextmanager
def _owned(out: Path, workers: int = 1) -> Iterator[None]:
    """Hold a folder for this process alone, which carries out ``workers`` jobs side by side.

    Raises:
        InputError: If another run holds it, or nothing can be written there.
    """
    lock = _lock(out)
    owner = out / OWNER
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            write_json(owner, {"pid": os.getpid(), "host": platform.node(), "since": since, "workers": workers})
        except OSError as error:
            raise InputError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _execute(suite: Suite, engine: Any, jobs: list[Job], out: Path) -> tuple[dict[str, dict[str, Any]], int | None]:
    """Carry out what is left of ``jobs``: their results, and the exit code if a signal ended it."""
    finished = {job.name for job in jobs if job.finished}
    todo = [job for job in jobs if job.name not in finished]
    if not todo:
        return {}, None
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

    before = {}
    print(f"suite {suite.name}: {len(todo)} of {len(jobs)} jobs to do on {engine.workers} processes, in {out}")
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    view = LiveView(state) if sys.stdout.isatty() else PlainView(state)
    with view:
        results = engine.run(most_urgent_first(todo, predicted), suite.protocol, view)
    for number, handler in before.items():
        signal.signal(number, handler)
    if not signals:
        return results, None
    again = " ".join(["python -m benchmark.run", *sys.argv[1:]])
    print(f"stopped; finished work is kept, go on with: {again}", file=sys.stderr)
    return results, TERMINATED if signals[0] == signal.SIGTERM else INTERRUPTED


def _one(suite: Suite, engine: LocalEngine, jobs: list[Job], name: str) -> int:
    """Carry out one job, whose needs others have finished; no table is made."""
    named = {job.name: job for job in jobs}
    if name not in named:
        close = difflib.get_close_matches(name, named, n=1)
        hint = f"did you mean {close[0]}?" if close else "see --dry-run --jobs"
        raise InputError(f"--job: no job {name!r} in suite {suite.name}; {hint}")
    job = named[name]
    unfinished = [need for need in job.needs if not named[need].finished]
    if unfinished:
        print(f"error: {name} needs {', '.join(unfinished)}, not finished yet", file=sys.stderr)
        return INCOMPLETE
    if job.finished:
        print(f"finished before: {name}")
        return OK
    with _owned(job.folder / "attempt"):
        results, ended = _execute(suite, engine, [job], job.folder)
    if ended is not None:
        return ended
    if results[name]["status"] != "ok":
        print(f"failed: {name}: {results[name]['error']} (log: {job.folder / 'log'})", file=sys.stderr)
        return INCOMPLETE
    return OK


def _tabulate(suite: Suite, engine: Any, jobs: list[Job], results: dict[str, dict[str, Any]], out: Path) -> int:
    records: list[Record] = []
    failures = {name: r["error"] for name, r in results.items() if r["status"] == "failed"}
    for job in jobs:
        if job.part == "evaluate":
            error = failures.get(job.name)
            records += read_records(job) if error is None else failed_records(job, error)
    cells = [name for name in suite.cells if any(r.cell == name for r in records)]
    floors = {name for name, cell in suite.cells.items() if cell.floor}
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(engine), records=records)
    write_tables(out, table, cells, floors)
    write_per_class(out, jobs)
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


if __name__ == "__main__":
    sys.exit(main())
