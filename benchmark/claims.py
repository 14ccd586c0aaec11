"""Hold the papers' claims against results: ``python -m benchmark.claims RESULTS [RESULTS ...]``.

Each claim of configs/claims.yaml gets a verdict from paired differences over seeds and test images: reproduced,
contradicted, absent, inconclusive, or not run. Exit code: 0 whatever the verdicts, 2 unusable input.
"""

import sys

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command
from benchmark.results.ledger import CLAIMS, FORMATS, ledger_of
from benchmark.system.surroundings import path_option

MOST = 8
"""Results that stand side by side."""


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.claims", description=__doc__.split("\n\n", 1)[1])
    p.add_argument("results", metavar="RESULTS", type=path_option, nargs="+", help="results.json, or its folder")
    p.add_argument("--format", choices=FORMATS, default="text", help="what to print (default: text)")
    p.add_argument("--claims", metavar="FILE", type=path_option, default=CLAIMS, help="other claims, same layout")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Judge and print; returns the exit code."""
    options = parser().parse_args(argv)
    if len(options.results) > MOST:
        raise InputError(f"{len(options.results)} results; name at most {MOST}")
    paths = [given / "results.json" if given.is_dir() else given for given in options.results]
    twice = next((path for i, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:i]}), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice; leave one out")
    print(FORMATS[options.format](ledger_of(paths, options.claims)), end="")
    return OK


if __name__ == "__main__":
    sys.exit(main())
