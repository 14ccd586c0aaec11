"""Exit codes, and errors that a user can act on: one line on standard error, never a traceback."""

import sys
from collections.abc import Callable
from functools import wraps

OK, REGRESSION, UNUSABLE_INPUT, NOT_COMPARABLE, INCOMPLETE = 0, 1, 2, 3, 4
INTERRUPTED, TERMINATED = 130, 143


class InputError(Exception):
    """Unusable input; the message says what is wrong and what to do."""

    code = UNUSABLE_INPUT


class NotComparableError(InputError):
    """Two results that measure different things."""

    code = NOT_COMPARABLE


class Stopped(Exception):
    """Training ended early because it was asked to; its state is saved."""


def one_line(error: BaseException) -> str:
    """The message of an error on one line; an operating-system error with its file."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def innermost(error: BaseException) -> str:
    """The cause of a chain of errors on one line: its first ``InputError``, else the one at the bottom."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return one_line(error)


def command(main: Callable[[list[str] | None], int]) -> Callable[[list[str] | None], int]:
    """Make ``main`` report an ``InputError`` as one line on standard error and return its exit code."""

    @wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except InputError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return error.code
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()
            return OK

    return guarded
