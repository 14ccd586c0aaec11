"""python -m benchmark.report RUN: one self-contained HTML page of a run, its tables, curves and samples."""

import sys

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped
from benchmark.results.results_file import read_results
from benchmark.suite.jobs import PLAN, read_plan
from benchmark.suite.suite import cells_and_floors, words_of
from benchmark.system.surroundings import path_option


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.report", description=__doc__)
    p.add_argument("run", metavar="RUN", type=path_option, help="folder of a run, e.g. runs/digits")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Write ``report.html`` into the folder of a run."""
    options = parser().parse_args(argv)
    from benchmark.results.page import write_report  # not for `--help`

    if not (options.run / "results.json").is_file():
        raise InputError(f"{options.run} holds no results.json; run `python -m benchmark.run --suite NAME` first")
    jobs = read_plan(options.run)[1] if (options.run / PLAN).is_file() else []
    cells = list(dict.fromkeys(job.cell.name for job in jobs if job.part == "evaluate"))
    floors = {job.cell.name for job in jobs if job.cell.floor}
    results = read_results(options.run / "results.json")
    if not jobs:  # a committed table, or merged ones
        known, floors = cells_and_floors(results.suite)
        there = dict.fromkeys(record.cell for record in results.records)
        cells = [*(cell for cell in known if cell in there), *(cell for cell in there if cell not in known)]
    print(escaped(write_report(options.run, cells, floors, again=words_of(results.suite))))
    return OK


if __name__ == "__main__":
    sys.exit(main())
