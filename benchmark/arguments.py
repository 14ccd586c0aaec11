"""The parser of our commands: it takes whole option names and answers bad usage in one line."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmark.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse's parser, without completed options and without the usage before an error.

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
