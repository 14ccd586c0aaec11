"""Sampling on several devices of this machine: a process each, with a share of the shards.

Tested with processes on a CPU, not on several GPUs. This module imports nothing that reads the list of GPUs, because a
process learns its own GPU after it has imported the module.
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
        threads: Threads of each process; they change the last bits of samples.
        missing: The shards to draw.
        drawn: Receives the number of images of each batch.

    Raises:
        RuntimeError: If a process died. Other exceptions of a process are raised here; the others end.
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
    """Main function of a process: draw a share of the shards and send progress."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(multiprocessing.parent_process().pid)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    shards, arguments, trained, threads, share = connection.recv()  # imports their classes
    import torch

    from benchmark.training.build import method_of

    torch.set_num_threads(threads)
    try:
        method, data = method_of([*arguments, "--trainer.devices=1"], trained)
        shards.draw(method, data, share, connection.send)
    except Exception as error:
        traceback.print_exc()
        connection.send(error)
