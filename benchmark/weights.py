"""python -m benchmark.weights: download weights of feature networks; unpack or release trained methods."""

import sys
from pathlib import Path
from typing import get_args

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped
from benchmark.execute.session import ensure_weights
from benchmark.suite.protocol import REFERENCE, FeatureName
from benchmark.system.names import NAME
from benchmark.system.surroundings import absolute, path_option

PUBLISHED = tuple(name for name in get_args(FeatureName) if name != REFERENCE)
RELEASED = Path(__file__).parents[1] / "results" / "weights"


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.weights", description=__doc__.split(": ", 1)[1])
    p.add_argument(
        "names", metavar="NAME", nargs="*", choices=(*PUBLISHED, []), help=f"download one of {', '.join(PUBLISHED)}"
    )
    p.add_argument("--ours", metavar="SUITE", help="unpack the trained methods of a committed table, e.g. digits")
    p.add_argument("--release", metavar="RUN", type=path_option, help="write a run's trained methods for others")
    p.add_argument(
        "--out", metavar="DIR", type=path_option, help="with these, the folder (runs/ours/SUITE, runs/released)"
    )
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Download, unpack or release weights; returns the exit code."""
    options = parser().parse_args(argv)
    asked = [bool(options.names), options.ours is not None, options.release is not None]
    if sum(asked) != 1:
        raise InputError("give names to download, --ours SUITE or --release RUN")
    if options.out is not None and options.names:
        raise InputError(
            "--out goes with --ours or --release; --weights and DIFFCLASS_WEIGHTS name the folder of downloads"
        )
    if options.names:
        for path in ensure_weights(options.names):
            print(escaped(path))
        return OK
    from benchmark.training.released import pack, unpack

    if options.release is not None:
        files = pack(options.release, options.out or absolute("runs") / "released")
        size = sum(file.stat().st_size for file in files) / 1e6
        print(f"{len(files)} methods, {size:.3g} MB: {escaped(files[0].parent)}")
        return OK
    have = sorted(path.name for path in RELEASED.iterdir() if path.is_dir()) if RELEASED.is_dir() else []
    if options.ours not in have or not NAME.fullmatch(options.ours):
        raise InputError(f"no trained methods of {escaped(options.ours)!r} are released; there are: {', '.join(have)}")
    for cell, folder, count in unpack(RELEASED / options.ours, options.out or absolute("runs") / "ours" / options.ours):
        print(f"{cell:<24} {count:>9,} weights  {escaped(folder)}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
