"""python tests/faults/busy.py: run a suite again and again on a busy machine; the numbers must be equal each time.

Each round is a fresh process in a fresh folder with the default ``--out``, as a user starts it. The suite of fifty
tiny jobs is the default; ``--suite digits --rounds 2`` is the main job, twice.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults import micro  # noqa: E402

SEEDS = list(range(8))
FIFTY = {
    **micro.SUITE,
    "seeds": SEEDS,
    "cells": {
        "reference_classifier": micro.SUITE["cells"]["reference_classifier"],
        "supervised": {"config": "digits/supervised.yaml", "set": {**micro.SHORT, "trainer.max_steps": 2}},
        "score_model": {
            "config": "digits/score_model.yaml",
            "set": {**micro.SUITE["cells"]["score_model"]["set"], "trainer.max_steps": 2},
        },
        "gaussian": micro.SUITE["cells"]["gaussian"],
    },
}
"""Training and evaluation of one reference, and of three cells with eight seeds."""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that compute all the while and nothing else."""
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in beside:
            process.kill()
            process.wait()


def one_round(suite: str, folder: Path) -> dict:
    """Run a suite in a fresh folder; its numbers.

    Raises:
        SystemExit: If it does not end with 0, with what it said.
    """
    folder.mkdir()
    if suite == "fifty":
        (folder / "fifty.yaml").write_text(yaml.safe_dump(FIFTY, sort_keys=False))
    words = ["--suite", "fifty.yaml" if suite == "fifty" else suite]
    process = micro.started(folder, words=words)
    code, output, errors = micro.ended(process, seconds=24 * 3600)
    if code != 0:
        sys.exit(f"{folder}: exit code {code}\n{output[-3000:]}\n{errors}")
    return micro.numbers(folder / "runs" / suite)


def main() -> None:
    """Run the rounds; exits with 1 if one fails or has other numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="fifty", help="fifty (default), or a suite of the benchmark")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=6, help="busy ones beside it (default 6)")
    options = parser.parse_args()
    expected = None
    with tempfile.TemporaryDirectory() as folder, busy(options.processes):
        for number in range(options.rounds):
            start = time.monotonic()
            found = one_round(options.suite, Path(folder) / f"{number}")
            seconds = time.monotonic() - start
            expected = found if expected is None else expected
            equal = found == expected
            said = f"exit code 0, {len(found)} numbers, {'equal' if equal else 'OTHERS than in round 1'}"
            print(f"round {number + 1}: {said}, {seconds:.0f} s on {len(os.sched_getaffinity(0))} cores", flush=True)
            if not equal:
                sys.exit(f"these differ: {[key for key in {*found, *expected} if found.get(key) != expected.get(key)]}")


if __name__ == "__main__":
    main()
