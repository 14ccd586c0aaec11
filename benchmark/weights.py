"""python -m benchmark.weights: download weights of feature networks; unpack or release trained methods."""

import sys
from pathlib import Path
from typing import get_args

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped, shown
from benchmark.execute.session import ensure_weights
from benchmark.suite.protocol import REFERENCE, FeatureName
from benchmark.system.names import NAME
from benchmark.system.signals import ended_by_signals
from benchmark.system.surroundings import absolute, path_option

PUBLISHED = tuple(name for name in get_args(FeatureName) if name != REFERENCE)
RELEASED = Path(__file__).parents[1] / "results" / "weights"


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.weights", description=__doc__.split(": ", 1)[1])
    p.add_argument("names", metavar="NAME", nargs="*", help=f"download one of {', '.join(PUBLISHED)}")
    p.add_argument(
        "--ours", metavar="SUITE", help="unpack the trained methods of a committed table, e.g. digits, or of a folder"
    )
    p.add_argument("--release", metavar="RUN", type=path_option, help="write a run's trained methods for others")
    p.add_argument("--seed", metavar="N", type=int, help="with --release, of this seed (the smallest)")
    p.add_argument("--out", metavar="DIR", type=path_option, help="the folder (runs/ours/SUITE, runs/released/RUN)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Download, unpack or release weights; returns the exit code."""
    options = parser().parse_args(argv)
    asked = [bool(options.names), options.ours is not None, options.release is not None]
    if sum(asked) != 1:
        raise InputError("give names to download, --ours SUITE or --release RUN")
    if options.names and options.out is not None:
        raise InputError(
            "--out goes with --ours or --release; downloads go to the folder of torch.hub, which TORCH_HOME names"
        )
    if options.seed is not None and options.release is None:
        raise InputError("--seed goes with --release")
    with ended_by_signals():
        if options.names:
            return _download(options.names)
        if options.ours is not None:
            return _unpack(options.ours, options.out)
        return _release(
            options.release, options.out or absolute("runs") / "released" / options.release.name, options.seed
        )


def _download(names: list[str]) -> int:
    for name in names:
        if name not in PUBLISHED:
            raise InputError(f"no weights of {shown(name, 60)!r}; there are: {', '.join(PUBLISHED)}")
    for path in ensure_weights(names):
        print(escaped(path))
    return OK


def _release(run: Path, out: Path, seed: int | None) -> int:
    from benchmark.training.released import pack

    files = pack(run, out, seed)
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files)} methods, {size:.3g} MB: {escaped(out)}")
    return OK


def _unpack(named: str, out: Path | None) -> int:
    from benchmark.training.released import unpack

    have = sorted(path.name for path in RELEASED.iterdir() if path.is_dir()) if RELEASED.is_dir() else []
    folder = RELEASED / named if named in have and NAME.fullmatch(named) else absolute(named)
    if not folder.is_dir():
        raise InputError(f"no trained methods of {shown(named, 60)!r} are released; there are: {', '.join(have)}")
    for cell, at, count in unpack(folder, out or absolute("runs") / "ours" / folder.name):
        print(f"{cell:<24} {count:>9,} weights  {escaped(at)}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
