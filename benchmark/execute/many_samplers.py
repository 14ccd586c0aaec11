"""Samples drawn on several devices of this machine: a process each, which shares the shards with the others.

Tried with processes on a CPU; on more than one GPU it has not been run. This module imports nothing that looks at the
GPUs, for a process learns which one is its own after it has imported the module.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.system.machine import end_with

if TYPE_CHECKING:
    from benchmark.answers.samples import Shards


def draw(
    shards: "Shards",
    arguments: Sequence[str],
    trained: Path,
    devices: Sequence[str | None],
    threads: int,
    missing: list[range],
    drawn: Callable[[int], None],
) -> None:
    """Draw shards in a process for each device.

    Args:
        shards: The samples.
        arguments: Command line that builds the method.
        trained: Folder of its training.
        devices: Identifier of each GPU; None for a process on the CPU.
        threads: Of each process; bytes are equal only where it is.
        missing: The shards to draw.
        drawn: Called here with the number of images of each batch of any process.

    Raises:
        RuntimeError: If a process died. What else a process raises is raised here, and the others end.
    """
    context = multiprocessing.get_context("spawn")
    shares = [missing[i :: len(devices)] for i in range(min(len(devices), len(missing)))]
    with ExitStack() as started:
        processes = {}
        for device, share in zip(devices, shares, strict=False):
            here, there = context.Pipe()
            process = context.Process(target=_share, args=(there, device), daemon=True)
            process.start()
            started.callback(_end, process)
            there.close()
            here.send((shards, tuple(arguments), trained, threads, share))
            processes[here] = process
        while processes:
            for connection in wait(list(processes)):
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    process = processes.pop(connection)
                    process.join()
                    if process.exitcode:
                        text = f"a process that drew samples ended with exit code {process.exitcode}; the log says more"
                        raise RuntimeError(text) from None
                    continue
                if isinstance(message, Exception):
                    raise message
                drawn(message)


def _end(process: multiprocessing.Process) -> None:
    process.terminate()
    process.join()


def _share(connection: Connection, device: str | None) -> None:
    """The inside of a process: draw a share of the shards, and tell of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(multiprocessing.parent_process().pid)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    shards, arguments, trained, threads, share = connection.recv()  # which imports what they are made of
    import torch

    from benchmark.training.build import method_of

    torch.set_num_threads(threads)
    try:
        method, data = method_of([*arguments, "--trainer.devices=1"], trained)
        shards.draw(method, data, share, connection.send)
    except Exception as error:
        traceback.print_exc()
        connection.send(error)
