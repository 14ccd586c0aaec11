"""Signals that end a command by an exception, so that locks are released and child processes end first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from benchmark.errors import TERMINATED

ENDING = (signal.SIGINT, signal.SIGTERM)


def end(number: int, frame: Any = None) -> NoReturn:
    """Handler that ends the command by an exception; further signals are ignored.

    Raises:
        KeyboardInterrupt: On SIGINT.
        SystemExit: On SIGTERM, with exit code 143.
    """
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make SIGTERM end the block by an exception, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGTERM, end)
    if before[signal.SIGINT] is signal.default_int_handler:  # else it is ignored, or has another handler
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def delayed() -> Iterator[None]:
    """Delay signals until the end of the block, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, caught = {number: signal.getsignal(number) for number in ENDING}, []
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda *signal_and_frame: caught.append(signal_and_frame))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number, frame in caught[:1]:
            before[number](number, frame)
