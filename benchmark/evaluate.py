"""python -m benchmark.evaluate SAMPLES --data NAME: measure anybody's samples as the suite measures its own."""

import dataclasses
import re
import sys
from pathlib import Path

from benchmark.arguments import Parser, add_run_options, check_workers
from benchmark.errors import InputError, command
from benchmark.execute.local import LocalEngine
from benchmark.execute.worker import tell_workers
from benchmark.files import write_json
from benchmark.given_files import read_samples
from benchmark.ownership import owned
from benchmark.stages import read_manifest
from benchmark.suite import NAME, Cell, Suite, load_suite, suites
from benchmark.suite_run import GIVEN, execute, jobs_of, networks_needed, tabulate, with_given
from benchmark.weights import at_hand


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="python -m benchmark.evaluate",
        description=__doc__,
        epilog="The samples become a row of the suite's table, beside what its run in the folder has finished, and "
        "stay one. The suite's reference classifier is trained if that has not been done.",
    )
    p.add_argument("samples", metavar="SAMPLES", type=Path, help=".npz with images (and labels), or a folder of images")
    p.add_argument("--data", metavar="NAME", required=True, help=f"suite of the data; there are: {', '.join(suites())}")
    add_run_options(p)
    p.add_argument("--row", metavar="NAME", help="name of the row (default: that of the file or folder)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Measure samples; returns the exit code."""
    options = parser().parse_args(argv)
    check_workers(options.workers)
    suite = load_suite(options.data, options.budget)
    out = options.out or Path("runs") / suite.name
    row = options.row or re.sub(r"[^A-Za-z0-9._-]", "-", options.samples.stem)
    suite = with_samples(with_given(suite, out), options.samples, row)
    read_samples(options.samples)  # before anything is trained
    tell_workers(options)
    with LocalEngine(options.workers) as engine, owned(out, "--out", engine.workers):
        todo, every = jobs_of(suite, engine, out, suite.seeds, [row], write=False)
        at_hand(networks_needed(todo))
        results, ended = execute(suite, engine, todo, out)
        if ended is not None:
            return ended
        if not any(result["status"] == "failed" for result in results.values()):
            given = read_manifest(out / GIVEN) or {}
            write_json(out / GIVEN, {**given, row: str(options.samples.resolve())})
        return tabulate(suite, engine, every, results, out)


def with_samples(suite: Suite, path: Path, row: str) -> Suite:
    """A suite with one more row, given samples, or other ones in the place of a row given before.

    Raises:
        InputError: If there are none at ``path``, or the row's name cannot be used.
    """
    if not path.exists():
        raise InputError(f"no samples at {path}; give an .npz file or a folder of image files")
    if not NAME.fullmatch(row):
        raise InputError(f"--row must be 1 to 64 letters, digits, dots, dashes or underscores, got {row!r}")
    if row in suite.cells and suite.cells[row].samples is None:
        raise InputError(f"suite {suite.name} has a cell {row}; name the row otherwise with --row NAME")
    given = Cell(row, samples=str(path.resolve()), seed=0)
    return dataclasses.replace(suite, cells={**suite.cells, row: given})


if __name__ == "__main__":
    sys.exit(main())
