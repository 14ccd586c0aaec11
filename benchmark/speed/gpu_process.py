"""One item in a process of its own: its rows come back one by one, and it is ended when its time is up.

An error of a GPU leaves no context to go on in, and a compiler cannot be interrupted: both cost one process here.
Processes fork from a server that has imported everything and has not touched the GPU, so that each starts at once.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmark.errors import failure
from benchmark.speed.gpu_items import ITEMS, End, Skipped, Task
from benchmark.system.machine import end_with

PRELOADED = ("torch._dynamo", *sorted({f"benchmark.speed.{item.subject}" for item in ITEMS.values()}))


def prepare() -> None:
    """Start the server of processes, and wait until it has imported everything."""
    process = _context().Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None:
    """Main function of a process that ends at once."""


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def carry_out(task: Task, on_row: Callable[[dict[str, Any]], None]) -> End:
    """Measure an item in a new process, which is killed with all that it started when its seconds have passed."""
    context = _context()
    here, there = context.Pipe(duplex=False)
    start = time.perf_counter()
    process = context.Process(target=_measure, args=(there, task))
    process.start()
    there.close()
    status, reason = "cut", f"ended after its share of the time, {task.seconds:.0f} s"
    try:
        while here.poll(max(0.0, start + task.seconds - time.perf_counter())):
            kind, value = here.recv()
            if kind != "row":
                status, reason = kind, value
                break
            on_row(value)
    except (EOFError, ConnectionResetError):
        process.join(10)
        status, reason = "failed", f"its process ended with exit code {process.exitcode}"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        here.close()
    return End(status, round(time.perf_counter() - start, 1), reason)


def _measure(connection: Connection, task: Task) -> None:
    """Main function of the process: measure, sending rows and at last how it ended."""
    os.setsid()  # so that what it starts ends with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(multiprocessing.parent_process().pid)
    os.environ.update(task.environment)
    sys.stdout = sys.stderr  # rows are the command's own output
    from benchmark.speed.gpu_bench import Card

    try:
        item = ITEMS[task.name]
        card = Card(task, lambda row: connection.send(("row", row)))
        getattr(importlib.import_module(f"benchmark.speed.{item.subject}"), task.name)(card)
        connection.send(("done", None))
    except Skipped as error:
        connection.send(("skipped", str(error)))
    except Exception as error:  # whatever it is, the other items can still be measured
        connection.send(("failed", failure(error)))
