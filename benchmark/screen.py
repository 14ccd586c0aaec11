"""Standard output and error, which may be closed, full or unable to show a character: what cannot be shown is dropped.

What a command does and its exit code depend on its work alone, not on whether anybody sees it.
"""

import contextlib
import io
import os
import select
import sys
from typing import Any


class _Lossy(io.BufferedIOBase):
    """An open file to write to, by its number; what it does not take is dropped without a word.

    It holds nothing back and has no lock, so that a signal's handler may print while something is being printed.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number, self.name = number, name

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write or drop all of ``data``; returns its size in bytes."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:  # whoever shares the terminal made it not wait
                select.select([], [self._number], [])
            except OSError:
                break
        return len(data)


def protect() -> None:
    """Make standard output and error of this process lossy, for its whole life; streams that others set stay.

    Numbers 0 to 2 that are closed are opened on nothing, or the next file that is opened would be taken for a screen.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lossy(sys.stdout, 1, "<stdout>")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lossy(sys.stderr, 2, "<stderr>")


def _lossy(stream: Any, number: int, name: str) -> io.TextIOWrapper:
    """A stream in the place of another, which is None if its file was closed when Python started."""
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    by_line = number == 2 or (stream is not None and (stream.line_buffering or stream.write_through))
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(_Lossy(number, name), encoding, errors="backslashreplace", line_buffering=by_line)
