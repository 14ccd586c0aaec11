"""python -m benchmark.weights NAME: get the weights of feature networks, on a machine that can reach them."""

import sys
from collections.abc import Iterable
from typing import get_args

from benchmark.arguments import Parser
from benchmark.errors import OK, command, escaped
from benchmark.protocol import REFERENCE, FeatureName

PUBLISHED = tuple(name for name in get_args(FeatureName) if name != REFERENCE)


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.weights", description=__doc__)
    p.add_argument("names", metavar="NAME", nargs="+", choices=PUBLISHED, help=f"of {', '.join(PUBLISHED)}")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Get weights, or find that they are there; returns the exit code."""
    for path in at_hand(parser().parse_args(argv).names):
        print(escaped(path))
    return OK


def at_hand(names: Iterable[str]) -> list[str]:
    """Files with the weights of feature networks, downloaded where they were not here.

    Raises:
        InputError: If some cannot be had, or a file does not hold what it should.
    """
    names = [name for name in names if name != REFERENCE]
    if not names:
        return []
    from benchmark.metrics.published_networks import NETWORKS  # heavy

    return [str(NETWORKS[name].weights()) for name in names]


if __name__ == "__main__":
    sys.exit(main())
