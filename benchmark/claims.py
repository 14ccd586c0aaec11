"""Hold the papers' claims against results: ``python -m benchmark.claims RESULTS [RESULTS ...]``.

Each claim of configs/claims.yaml gets a verdict from paired differences over seeds and test images: reproduced,
contradicted, absent, inconclusive, or not run. Exit code: 0 whatever the verdicts, 2 unusable input.
"""

import sys
from pathlib import Path

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command
from benchmark.results.answers_file import read_answers
from benchmark.results.claims import read_claims
from benchmark.results.ledger import FORMATS, judge_all
from benchmark.results.published import PublishedNumbers
from benchmark.results.results_file import read_results
from benchmark.system.surroundings import path_option

ROOT = Path(__file__).resolve().parent.parent
CLAIMS, PUBLISHED = ROOT / "configs" / "claims.yaml", ROOT / "results" / "published.yaml"
MOST = 8
"""Results that stand side by side."""


@command
def main(argv: list[str] | None = None) -> int:
    """Judge and print; returns the exit code."""
    parser = Parser(prog="python -m benchmark.claims", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("results", metavar="RESULTS", type=path_option, nargs="+", help="results.json, or its folder")
    parser.add_argument("--format", choices=FORMATS, default="text", help="what to print (default: text)")
    parser.add_argument("--claims", metavar="FILE", type=path_option, default=CLAIMS, help="other claims, same layout")
    options = parser.parse_args(argv)
    if len(options.results) > MOST:
        raise InputError(f"{len(options.results)} results; name at most {MOST}")
    claims = read_claims(options.claims, PublishedNumbers(PUBLISHED))
    files = []
    for given in options.results:
        path = given / "results.json" if given.is_dir() else given
        results, answers = read_results(path), read_answers(path)
        if answers is not None:
            answers.check(results)
        files.append((path, results, answers))
    print(FORMATS[options.format](judge_all(claims, files)), end="")
    return OK


if __name__ == "__main__":
    sys.exit(main())
