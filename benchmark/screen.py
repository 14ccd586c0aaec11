"""Standard output and error that may be closed, full or unable to show a character: they drop text instead of failing.

A command's work and exit code do not depend on whether its output can be written.
"""

import contextlib
import io
import os
import select
import sys
from typing import Any


class _Lossy(io.BufferedIOBase):
    """An open file by its number; text that cannot be written is dropped silently.

    It has no buffer and no lock, so that a signal's handler may print during a print.
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
            except BlockingIOError:  # another program set the terminal to non-blocking
                select.select([], [self._number], [])
            except OSError:
                break
        return len(data)


def protect() -> None:
    """Make standard output and error of this process lossy; streams set by others stay.

    Closed numbers 0 to 2 are opened on the null device, or the next opened file would get their number.
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
    """A lossy stream in place of another, which is None if its file was closed when Python started."""
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    by_line = number == 2 or (stream is not None and (stream.line_buffering or stream.write_through))
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(_Lossy(number, name), encoding, errors="backslashreplace", line_buffering=by_line)
