"""python -m benchmark.speed: race what suites call against peers' code, equality checked first.

One row a target and peer, all measured in one run: CPU time of this process, medians of rounds in which the sides take
turns. A ratio above 1 favours us.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.arguments import Parser
from benchmark.errors import INCOMPLETE, OK, InputError, command, tell
from benchmark.speed.targets import PACKAGES, TARGETS, checkouts, chosen
from benchmark.system.files import write_json
from benchmark.system.surroundings import path_option

if TYPE_CHECKING:
    from benchmark.speed.race import Bench, Row

MOST_THREADS, MOST_ROUNDS = 1024, 1000
LAYOUT = "{:<32} {:<16} {:>7} {:>7} {:>6} {:>10} {:>10} {}"


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.speed", description=__doc__)
    p.add_argument(
        "--only", metavar="NAME", nargs="+", action="extend",
        help=f"targets or subjects; there are: {', '.join(TARGETS)}; "
        f"subjects: {', '.join(sorted({target.subject for target in TARGETS.values()}))}",
    )  # fmt: skip
    p.add_argument("--json", metavar="FILE", type=path_option, help="write all rows here too")
    p.add_argument("--threads", metavar="N", type=int, default=1, help="CPU threads of every side (default 1)")
    p.add_argument("--rounds", metavar="N", type=int, default=5, help="most timed rounds of a race (default 5)")
    p.add_argument(
        "--peer", metavar="NAME=DIR", action="append", default=[],
        help="checkout of released code: score_sde (score_sde_pytorch) or cdm (CDM); may be repeated",
    )  # fmt: skip
    p.add_argument("--tiny", action="store_true", help="work of the smallest sizes, to see that every target runs")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Race the targets; returns the exit code."""
    options = parser().parse_args(argv)
    for name, most in (("threads", MOST_THREADS), ("rounds", MOST_ROUNDS)):
        if not 1 <= getattr(options, name) <= most:
            raise InputError(f"--{name} must be 1 to {most}, got {getattr(options, name)}")
    try:
        targets = chosen(options.only)
    except KeyError as error:
        raise InputError(f"--only: no target {error}; there are: {', '.join(TARGETS)}") from None
    if options.json is not None and not options.json.parent.is_dir():
        raise InputError(f"--json: there is no folder {options.json.parent}")
    bench = _raced(targets, checkouts(options.peer), options)
    if options.json is not None:
        write_json(options.json, _written(bench, options))
    if bench.unequal:
        tell(f"error: not equal, so not timed: {', '.join(sorted(set(bench.unequal)))}")
    return INCOMPLETE if bench.unequal else OK


def _raced(targets: dict[str, Any], checkouts: dict[str, Path], options: Any) -> "Bench":
    """Carry out the races, printing a row of the table after each."""
    from importlib import import_module

    import torch
    from threadpoolctl import threadpool_limits

    from benchmark.speed.peers import Peers
    from benchmark.speed.race import Bench

    def show(row: "Row") -> None:
        if len(bench.rows) < 2:
            print(LAYOUT.format("target", "peer", "ratio", "min", "goal", "ours", "theirs", "unit"), flush=True)
        print(LAYOUT.format(*_cells(row)).rstrip(), flush=True)

    bench = Bench(Peers(checkouts), options.rounds, options.tiny, show)
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):  # NumPy's
        for name, target in targets.items():
            torch.manual_seed(0)
            getattr(import_module(f"benchmark.speed.{target.subject}"), name)(bench)
    if not bench.rows and not bench.unequal:
        print("nothing was raced: no peer of these targets is there")
    return bench


def _cells(row: "Row") -> tuple[str, ...]:
    goal = "" if row.goal is None else f"{row.goal:.2f}"
    return (
        row.target,
        row.peer,
        f"{row.ratio:.2f}",
        f"{row.least:.2f}",
        goal,
        f"{row.ours:.3g}",
        f"{row.theirs:.3g}",
        row.unit,
    )


def _written(bench: "Bench", options: Any) -> dict[str, Any]:
    """All that a file of results holds, rows sorted by target and peer."""
    from dataclasses import asdict

    from benchmark.system.machine import processor, versions

    rows = [asdict(row) for row in sorted(bench.rows, key=lambda row: (row.target, row.peer))]
    return {
        "rows": [{**row.pop("more"), **row} for row in rows],
        "skipped": dict(sorted(bench.peers.lacking.items())),
        "machine": processor(),
        "threads": options.threads,
        "rounds": options.rounds,
        "versions": versions(PACKAGES),
    }


if __name__ == "__main__":
    sys.exit(main())
