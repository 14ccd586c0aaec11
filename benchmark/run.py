"""python -m benchmark.run --suite NAME: train, sample, evaluate and tabulate; finished work is kept."""

import argparse
import difflib
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.arguments import Parser, add_run_options, check_workers
from benchmark.cost.forecast import show_plan
from benchmark.errors import INCOMPLETE, OK, InputError, command, escaped, tell
from benchmark.execute.experiment_tables import check_experiment, tabulate_experiment
from benchmark.execute.local import LocalEngine
from benchmark.execute.session import ensure_weights, execute, jobs_of, networks_needed, with_given
from benchmark.execute.slurm import write_scripts
from benchmark.execute.tabulate import tabulate
from benchmark.suite.budgets import PAPER
from benchmark.suite.experiments import EXPERIMENTS, experiments, load_experiment, read_experiment
from benchmark.suite.jobs import PLAN, QUEUE, Job
from benchmark.suite.source_code import keep_readings, recall_readings
from benchmark.suite.suite import Suite, check_seeds, load_suite, suites
from benchmark.system.files import write_text
from benchmark.system.lock import acquire, owned
from benchmark.system.names import NAME
from benchmark.system.signals import ended_by_signals
from benchmark.system.surroundings import FOLDERS, absolute, data_folders, environment, path_option
from benchmark.system.yaml_files import parse_text


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.run", description=__doc__)
    p.add_argument(
        "--suite", metavar="NAME", required=True,
        help=f"suite to run; there are: {', '.join(suites())}; or {EXPERIMENTS}/ID, an experiment of the papers; "
        f"{EXPERIMENTS} alone lists those",
    )  # fmt: skip
    p.add_argument("--data", metavar="NAME", help="suite that carries an experiment out, e.g. digits")
    add_run_options(p)
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a setting of every method")
    p.add_argument("--name", metavar="NAME", help="name in results; needed where --set changes what is compared")
    p.add_argument(
        "--only", metavar="CELL", action="append", help="carry out this cell alone, and what it needs; may be repeated"
    )
    p.add_argument("--seeds", metavar="0,1,2", help="seeds, separated by commas; the suite's own by default")
    p.add_argument("--fresh", action="store_true", help="forget what an earlier run in the folder finished")
    p.add_argument("--dry-run", action="store_true", help="show jobs, order and predicted time, and do nothing")
    p.add_argument("--jobs", action="store_true", help="with --dry-run, also every job and what it waits for")
    p.add_argument("--patience", metavar="MINUTES", type=float, help="end and try again jobs silent so long (never)")
    p.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    p.add_argument("--address", metavar="ADDRESS", help="of the Ray cluster: auto, ray://HOST:PORT or HOST:PORT")
    p.add_argument("--job", metavar="CELL/SEED/PART", help="carry out this job alone, e.g. a/seed0/train; no table")
    p.add_argument(
        "--emit-sbatch", metavar="DIR", type=path_option, help="write Slurm scripts of the jobs, run nothing"
    )
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
    if options.suite == EXPERIMENTS:
        print(*(escaped(read_experiment(name).line) for name in experiments()), sep="\n")
        return OK
    suite, cells, tables = _asked(options, changes)
    out = options.out or absolute("runs") / suite.name
    suite = with_given(suite, out)
    recall_readings(out)
    seeds = suite.seeds if options.seeds is None else _seeds(options.seeds)
    check_workers(options.workers)
    only = _checked(suite, options.only or cells)
    with ended_by_signals(), environment(data_folders(options)), _engine(options) as engine:
        planned = partial(jobs_of, suite, engine, out, seeds, only)
        if options.dry_run:
            show_plan(planned(write=False, dry=True)[0], suite, engine, options.jobs)
            return OK
        if options.job is not None:
            acquire(out, "--out", seconds=5).release()  # refused while a run of the whole suite is active
            return _one(suite, engine, planned(write=True)[0], options.job)
        with owned(out, "--out", engine.workers) as check:
            with _forgotten(out / PLAN) if options.fresh else nullcontext():
                jobs, every = planned(write=True)
            if options.emit_sbatch is not None:
                return _queued(suite, jobs, options, out)
            if options.fresh:
                for folder in {job.cell.name for job in jobs}:
                    shutil.rmtree(out / folder, ignore_errors=True)
            ensure_weights(networks_needed(jobs))  # before hours of training
            (out / QUEUE).unlink(missing_ok=True)
            results, ended = execute(suite, engine, jobs, out, check)
            if ended is not None:
                return ended
            code = tables(suite, engine, every, results, out)
            keep_readings(out)
            return code


def _asked(
    options: argparse.Namespace, changes: dict[str, Any]
) -> tuple[Suite, list[str], Callable[[Suite, Any, list[Job], dict[str, dict[str, Any]], Path], int]]:
    """The suite, the cells of the experiment that it carries out, if any, and what makes the tables."""
    if options.suite.startswith(f"{EXPERIMENTS}/") and not options.suite.endswith((".yaml", ".yml")):
        experiment = read_experiment(options.suite)
        check_experiment(experiment)
        suite, cells = load_experiment(experiment, options.data, options.budget, changes, options.name)
        return suite, cells, partial(tabulate_experiment, experiment, cells)
    if options.data is not None:
        raise InputError(f"--data is for experiments, such as --suite {experiments()[0]}; leave it out")
    return load_suite(options.suite, options.budget, changes, options.name), [], tabulate


def _check_engine(options: argparse.Namespace) -> None:
    """Refuse options without effect or with another effect than they promise."""
    if options.address is not None and options.engine != "ray":
        raise InputError("--address is of a Ray cluster; add --engine ray")
    if options.patience is not None and not 0 < options.patience < math.inf:
        raise InputError(f"--patience must be a number of minutes above 0, got {options.patience}")
    if options.patience is not None and options.engine == "ray":
        raise InputError("--patience is for --engine local; Ray ends what its nodes do not hear of")
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
        patience = math.inf if options.patience is None else 60 * options.patience
        # Scripts are for machines with other devices; a job that runs here is built for this one later.
        here = options.emit_sbatch is None and options.job is None
        alone = options.job is not None
        return LocalEngine(1 if alone else options.workers, patience=patience, here=here, leased=alone)
    try:
        from benchmark.execute.ray_engine import RayEngine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(
            "--engine ray needs Ray; install it with: pip install -c constraints.txt -e '.[ray]'"
        ) from None
    return RayEngine(options.address)


@contextmanager
def _forgotten(plan: Path) -> Iterator[None]:
    """A run's plan is not there in the block; it is there again if the block fails."""
    kept = plan.read_bytes() if plan.is_file() else None
    plan.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if kept is not None and not plan.exists():
            plan.write_bytes(kept)
        raise


def _arguments(options: argparse.Namespace, out: Path) -> list[str]:
    """The command line of the same run from any folder."""
    named = options.suite
    words = ["--suite", str(absolute(named)) if Path(named).suffix else named, "--out", str(out)]
    words += ["--data", options.data] if options.data is not None else []
    words += ["--budget", options.budget] if options.budget != PAPER else []
    words += [word for change in options.set for word in ("--set", change)]
    words += ["--name", options.name] if options.name is not None else []
    words += [word for cell in options.only or () for word in ("--only", cell)]
    words += ["--seeds", options.seeds] if options.seeds is not None else []
    for option, variable in FOLDERS.items():
        words += [option, os.environ[variable]] if os.environ.get(variable) else []
    return words


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
    return check_seeds([int(w) if w.isdecimal() and len(w) < 20 else w for w in words], "--seeds")


def _checked(suite: Suite, only: list[str]) -> list[str]:
    """Names of the cells asked for; all where none is."""
    for name in only:
        if name not in suite.cells:
            raise InputError(f"--only: no cell {name!r} in suite {suite.name}; there are: {', '.join(suite.cells)}")
    return only or list(suite.cells)


def _queued(suite: Suite, jobs: list[Job], options: argparse.Namespace, out: Path) -> int:
    """Write scripts of Slurm, and say how to submit them."""
    submit = write_scripts(options.emit_sbatch, jobs, suite.name, _arguments(options, out))
    write_text(out / QUEUE, f"{submit}\n")
    print(f"nothing was run; submit the jobs with: {escaped(submit)} [options of sbatch]")
    return OK


def _one(suite: Suite, engine: LocalEngine, jobs: list[Job], name: str) -> int:
    """Carry out one job, whose needs are finished, without tables."""
    named = {job.name: job for job in jobs}
    if name not in named:
        close = difflib.get_close_matches(name, named, n=1)
        hint = f"did you mean {close[0]}?" if close else "see --dry-run --jobs"
        raise InputError(f"--job: no job {name!r} in suite {suite.name}; {hint}")
    job = named[name]
    unfinished = [need for need in job.needs if not named[need].finished]
    if unfinished:
        tell(f"error: {name} needs {', '.join(unfinished)}, not finished yet")
        return INCOMPLETE
    if job.finished:
        print(f"finished before: {name}")
        return OK
    with owned(job.folder / "attempt", "--out") as check:
        results, ended = execute(suite, engine, [job], job.folder, check)
    if ended is not None:
        return ended
    if results[name]["status"] != "ok":
        tell(f"failed: {name}: {results[name]['error']} (log: {job.folder / 'log'})")
        return INCOMPLETE
    return OK


if __name__ == "__main__":
    sys.exit(main())
