"""Parser of the benchmark's commands: takes whole option names and refuses bad usage in one line."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmark.errors import InputError
from benchmark.system.surroundings import path_option

MOST_WORKERS = 1024


class Parser(argparse.ArgumentParser):
    """argparse's parser without abbreviated options and without usage text in errors.

    Raises:
        InputError: On bad usage; an unknown option comes with the nearest one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--") if "--" in words else None]:
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in option and option not in self._option_string_actions:
                near = difflib.get_close_matches(option, self._option_string_actions, n=1)
                self.error(f"unknown option {option}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help shows the options)")


def add_run_options(p: Parser) -> None:
    """Options of commands that carry out jobs in a run's folder."""
    p.add_argument(
        "--budget", metavar="NAME", default="paper", help="a smaller budget that the suite states, e.g. small"
    )
    p.add_argument("--out", metavar="DIR", type=path_option, help="folder of the run (default runs/NAME)")
    for option, what in (
        ("--data-root", "the data sets (default $DIFFCLASS_DATA, else data)"),
        ("--weights", "feature networks' weights (default $DIFFCLASS_WEIGHTS)"),
    ):
        p.add_argument(option, metavar="DIR", type=path_option, help=f"folder of {what}")
    p.add_argument("--workers", metavar="N", type=int, help="processes side by side (default one per GPU or core)")


def check_workers(workers: int | None) -> None:
    """Refuse a number of processes that no machine carries.

    Raises:
        InputError: If it is not 1 to ``MOST_WORKERS``.
    """
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"--workers must be 1 to {MOST_WORKERS}, got {workers}")
