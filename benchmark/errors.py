"""Exit codes, and errors that a user can act on: one line on standard error, never a traceback."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from benchmark.screen import protect

LONGEST = 399
"""Characters of the longest line of a message."""
_SURROGATE = re.compile("[\ud800-\udfff]")
OK, REGRESSION, UNUSABLE_INPUT, NOT_COMPARABLE, INCOMPLETE = 0, 1, 2, 3, 4
INTERRUPTED, TERMINATED = 130, 143


class InputError(Exception):
    """Unusable input; the message says what is wrong and what to do."""

    code = UNUSABLE_INPUT


class WriteError(InputError):
    """A file that could not be written during work; its former content is intact."""

    code = INCOMPLETE


class MachineError(InputError):
    """A lack of the machine's, such as memory; with more of it the same command goes on."""

    code = INCOMPLETE


class Stopped(Exception):
    """Training ended early because it was asked to; its state is saved."""


ENVIRONMENT_HINT = "use the environment that `make setup` made: . .venv/bin/activate"
MEMORY_HINT = (
    "train with a smaller data.init_args.batch_size or accumulate it with trainer.accumulate_grad_batches, "
    "evaluate with a smaller protocol.batch in the suite"
)


def escaped(text: Any) -> str:
    """Foreign text at full length with unprintable characters escaped, such as a path to copy."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def shown(text: Any, longest: int = LONGEST) -> str:
    """Foreign text, safe to print: one line, unprintable characters escaped, the middle cut out if long.

    Args:
        text: Any value; converted by ``str``.
        longest: Most characters of the result.
    """
    text = str(text)
    if len(text) > 2 * longest:  # do not escape what will be left out
        text = f"{text[:longest]} ... {text[-longest:]}"
    line = escaped(" ".join(text.split()))
    if len(line) <= longest:
        return line
    head = (longest - 5) * 2 // 3
    return f"{line[:head]} ... {line[len(line) - (longest - 5 - head) :]}"


def traced(error: BaseException) -> str:
    """The traceback of an error for a log: a limited number of cut lines, safe to print."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(escaped(line[:1000]) for line in lines[:500])


def shortened(value: Any) -> str:
    """``repr`` of a value for a message, at most 60 characters."""
    text = ascii(value) if isinstance(value, str) and _SURROGATE.search(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(error: BaseException) -> str:
    """The message of an error on one safe line; an operating-system error with its file."""
    return shown(error) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, of the machine or of a GPU; torch has no type of its own for the former."""
    lacking = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in lacking))


def lacking(error: BaseException) -> str:
    """The lack of the system that caused an error, with a remedy; empty for other errors."""
    number, fewer = getattr(error, "errno", None), "or run fewer processes (--workers)"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many open files; raise their limit (ulimit -n) {fewer}"
    shared = str(getattr(error, "filename", None) or "/dev/shm").startswith("/dev/shm")
    if isinstance(error, OSError) and shared and number in (errno.ENOSPC, errno.EROFS, errno.EACCES):
        return f"shared memory (/dev/shm) cannot be used: {error.strerror}; enlarge or open it"
    words = ("can't start new thread", "failed to map segment", "annot allocate memory")
    few = number in (errno.ENOMEM, errno.EAGAIN) or any(word in str(error) for word in words)
    if few or out_of_memory(error):
        return f"not enough memory, or not enough processes allowed: {one_line(error)}; raise the limits {fewer}"
    return ""


def failure(error: BaseException) -> str:
    """Reason of a failure on one line: divergence, lack of memory, or the error with its type."""
    if isinstance(error, InputError):
        return one_line(error)
    if isinstance(error, FloatingPointError):
        return f"diverged: {one_line(error)}"
    if out_of_memory(error):
        asked = re.search(r"allocate ([\d.]+ [A-Za-z]+)", str(error))  # torch says too much
        return f"out of memory: {f'{asked[1]} asked for' if asked else shown(one_line(error), 60)}; {MEMORY_HINT}"
    return f"{type(error).__name__}: {one_line(error)}"


def innermost(error: BaseException) -> str:
    """The cause of a chain of errors on one line: its first ``InputError``, else the one at the bottom."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return one_line(error)


def tell(text: str) -> None:
    """Print one safe line on standard error."""
    print(shown(text), file=sys.stderr, flush=True)


def command(main: Callable[[list[str] | None], int]) -> Callable[[list[str] | None], int]:
    """Make ``main`` report unusable input as one line on standard error and return its exit code."""

    @wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        protect()
        try:
            return main(argv)
        except InputError as error:
            tell(f"error: {error}")
            return error.code
        except KeyboardInterrupt:
            return INTERRUPTED
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            lack = lacking(error)
            if isinstance(error, ModuleNotFoundError) and not os.environ.get("DIFFCLASS_DEBUG"):
                tell(f"error: {sys.executable} has no package {error.name}; {ENVIRONMENT_HINT}")
                return UNUSABLE_INPUT
            if os.environ.get("DIFFCLASS_DEBUG") or not (lack or getattr(error, "filename", None)):
                raise
            if lack:
                tell(f"error: {lack}")
                return INCOMPLETE
            tell(f"error: {error.filename}: {error.strerror}; name another file or folder")
            return UNUSABLE_INPUT

    return guarded
