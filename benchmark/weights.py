"""python -m benchmark.weights NAME: download the weights of feature networks."""

import sys
from typing import get_args

from benchmark.arguments import Parser
from benchmark.errors import OK, command, escaped
from benchmark.execute.session import ensure_weights
from benchmark.suite.protocol import REFERENCE, FeatureName

PUBLISHED = tuple(name for name in get_args(FeatureName) if name != REFERENCE)


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.weights", description=__doc__)
    p.add_argument("names", metavar="NAME", nargs="+", choices=PUBLISHED, help=f"of {', '.join(PUBLISHED)}")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Download missing weights; returns the exit code."""
    for path in ensure_weights(parser().parse_args(argv).names):
        print(escaped(path))
    return OK


if __name__ == "__main__":
    sys.exit(main())
