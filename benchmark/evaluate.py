"""python -m benchmark.evaluate SAMPLES --data NAME: measure given samples as the suite measures its own."""

import dataclasses
import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from benchmark.arguments import Parser, add_run_options, check_workers
from benchmark.errors import InputError, command, shown
from benchmark.execute.given_rows import check_given, check_row, forget_row, keep_row
from benchmark.execute.local import LocalEngine
from benchmark.execute.session import ensure_weights, execute, jobs_of, networks_needed, with_given
from benchmark.execute.tabulate import outdated_rows, tabulate
from benchmark.suite.cells import Cell
from benchmark.suite.jobs import Job, leave_out
from benchmark.suite.suite import Suite, load_suite, suites
from benchmark.system.lock import owned
from benchmark.system.names import check_cell_name
from benchmark.system.sample_files import check_samples_at
from benchmark.system.signals import ended_by_signals
from benchmark.system.surroundings import absolute, data_folders, environment, path_option


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="python -m benchmark.evaluate",
        description=__doc__,
        epilog="The samples are added to the suite's table as a row, beside the finished cells of the run in the "
        "folder, and are kept until --remove. The suite's reference classifier is trained first if necessary.",
    )
    samples_help = ".npz with images (and labels), or a folder of images"
    p.add_argument("samples", metavar="SAMPLES", type=path_option, nargs="?", help=samples_help)
    p.add_argument("--data", metavar="NAME", required=True, help=f"suite of the data; there are: {', '.join(suites())}")
    add_run_options(p)
    p.add_argument("--row", metavar="NAME", help="name of the row (default: that of the file or folder)")
    p.add_argument("--remove", metavar="ROW", help="take a row of given samples out of the run and its tables")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Measure samples; returns the exit code."""
    options = parser().parse_args(argv)
    check_workers(options.workers)
    if (options.samples is None) == (options.remove is None) or (options.remove and options.row):
        raise InputError("give SAMPLES, with --row NAME if you like, or --remove ROW alone")
    suite = load_suite(options.data, options.budget)
    out = options.out or absolute("runs") / suite.name
    with ended_by_signals(), environment(data_folders(options)), LocalEngine(options.workers) as engine:
        return _add(suite, engine, out, options) if options.remove is None else _remove(suite, engine, out, options)


def _add(suite: Suite, engine: LocalEngine, out: Path, options: Namespace) -> int:
    """Measure samples and keep them as a row."""
    row = options.row or re.sub(r"[^A-Za-z0-9._-]", "-", options.samples.resolve().stem)
    suite = with_samples(suite, out, options.samples, row)
    print(f"reading {shown(options.samples.name)}", flush=True)
    check_given(suite, engine, {row: suite.cells[row].samples})  # before anything is trained
    with owned(out, "--out", engine.workers) as check:
        todo, every = jobs_of(suite, engine, out, suite.seeds, [row], write=False)
        check_kept(every, out, row)
        ensure_weights(networks_needed(todo))
        results, ended = execute(suite, engine, todo, out, check)
        if ended is not None:
            return ended
        if not any(result["status"] == "failed" for result in results.values()):
            keep_row(out, row, Path(suite.cells[row].samples))
        return tabulate(suite, engine, every, results, out, row)


def _remove(suite: Suite, engine: LocalEngine, out: Path, options: Namespace) -> int:
    """Forget a row, its results and its copy of the samples, and write the tables without it."""
    row = options.remove
    check_row(out, row)
    with owned(out, "--out", engine.workers):
        cells = {
            name: cell for name, cell in with_given(suite, out).cells.items() if name in suite.cells or name != row
        }
        rest = dataclasses.replace(suite, cells=cells)
        _, every = jobs_of(rest, engine, out, rest.seeds, [], write=False, dry=True)
        check_kept(every, out, row)
        forget_row(out, row)
        if row not in suite.cells:  # else the results are those of a cell that has got the same name
            leave_out(out, row)
            shutil.rmtree(out / row, ignore_errors=True)
        print(f"removed: {shown(row)}")
        return tabulate(rest, engine, every, {}, out)


def check_kept(jobs: list[Job], out: Path, row: str) -> None:
    """Check that new tables would keep the rows of the run's ``results.json``, except ``row``.

    A row of other code, settings or data is not written again.

    Raises:
        InputError: If a row that is not failed would be lost.
    """
    if lost := outdated_rows([job for job in jobs if job.cell.name != row], out):
        raise InputError(
            f"{out / 'results.json'} has {len(lost)} row(s) of other code, settings or data, {lost[0].cell.name} the "
            "first, which new tables would lose; run the suite again first (benchmark.run), or name another --out"
        )


def with_samples(suite: Suite, out: Path, path: Path, row: str) -> Suite:
    """A suite with the rows given to its run and one more, which replaces a row of the same name.

    Raises:
        InputError: If there are no samples at ``path``, or the row's name cannot be used.
    """
    check_samples_at(path)
    check_cell_name(row, "--row")
    if row in suite.cells:
        raise InputError(f"suite {suite.name} has a cell {row}; name the row otherwise with --row NAME")
    given = Cell(row, samples=str(path.resolve()), seed=0)
    return dataclasses.replace(suite, cells={**with_given(suite, out).cells, row: given})


if __name__ == "__main__":
    sys.exit(main())
