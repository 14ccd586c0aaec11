"""python -m benchmark.report RUN: one self-contained HTML page of a run, its tables, curves and samples."""

import sys

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped
from benchmark.suite.jobs import PLAN, read_plan
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
    print(escaped(write_report(options.run, cells, {job.cell.name for job in jobs if job.cell.floor})))
    return OK


if __name__ == "__main__":
    sys.exit(main())
