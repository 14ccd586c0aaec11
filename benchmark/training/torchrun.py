"""Training on several devices of this machine, in a process each, started by torchrun.

Tested with processes on a CPU, not on several GPUs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer

from benchmark.errors import InputError, Stopped, WriteError, one_line
from benchmark.system.machine import FOREIGN, end_with
from benchmark.system.memory import peak_memory
from benchmark.system.report import Report
from benchmark.training.checkpoints import ResumePoints
from benchmark.training.progress import StepReports
from benchmark.training.saved_config import KeptConfig

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {kind.__name__: kind for kind in (Stopped, FloatingPointError, WriteError, InputError)}


class Messages(StepReports):
    """Sends the process that started a training its progress and result, in a file of JSON lines.

    Writes to any path; therefore ``device_process`` adds it, and no configuration can name it.

    Args:
        path: The file.
        parent: Identifier of the process that started the training; this one ends with it.
    """

    def __init__(self, path: str, parent: int) -> None:
        super().__init__(self._send_step)
        self.path, self.parent = Path(path), parent

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        next(c for c in trainer.callbacks if isinstance(c, ResumePoints)).kept = True
        next(c for c in trainer.callbacks if isinstance(c, KeptConfig)).written = True  # by its parent
        end_with(self.parent)

    def _send(self, **message: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")

    def _send_step(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        self._send(stage=stage, done=done, total=total, loss=loss)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            self._send(error=type(exception).__name__, text=one_line(exception))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        clock = next(c for c in trainer.callbacks if isinstance(c, ResumePoints))
        peak = torch.tensor(peak_memory() or 0, device=trainer.strategy.root_device)
        result = {
            "seconds": clock.seconds,
            "cpu_seconds": clock.cpu_seconds,
            "steps": trainer.global_step,
            "peak_memory_bytes": int(trainer.strategy.reduce(peak, reduce_op="max")) or None,
        }
        if trainer.is_global_zero:
            self._send(result=result)


def fit(
    arguments: Sequence[str],
    processes: int,
    folder: Path,
    report: Report,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train by ``lightning fit`` in ``processes`` processes.

    Args:
        arguments: Command line after ``fit``, with as many ``trainer.devices``.
        processes: Number of processes, one a device.
        folder: Folder of the file of messages.
        report: Called with the steps of the training.
        stop: Returns whether to save and stop; the processes have 30 seconds to finish their step, then torchrun
            ends them and the last resume point is kept.

    Returns:
        ``seconds``, ``cpu_seconds``, ``steps`` and the largest ``peak_memory_bytes`` of a device.

    Raises:
        Stopped: If ``stop`` returned true.
        FloatingPointError: If a loss is not finite.
        InputError: If the configuration or a file cannot be used.
        RuntimeError: If a process ended in another way.
    """
    messages = folder / "messages"
    messages.unlink(missing_ok=True)
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    own = ("-m", "benchmark.device_process", str(messages), str(os.getpid()))
    command = [sys.executable, *torchrun, *own, "fit", *arguments]
    process = subprocess.Popen(command, env=_environment(), start_new_session=True)
    last: dict[str, Any] = {}
    lines = _lines(messages)
    stopping = False
    try:
        while True:
            ended = process.poll() is not None
            for message in lines:
                if message is None:
                    break
                last = message
                if "stage" in message:
                    report(message["stage"], message["done"], message["total"], message["loss"])
            if ended:
                break
            if stop() and not stopping:
                stopping = True
                process.terminate()  # torchrun passes it on
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if "result" in last and process.returncode == 0:
        messages.unlink()
        return last["result"]
    raise _error(last, stopping, process.returncode, processes)


def _error(last: dict[str, Any], stopping: bool, code: int, processes: int) -> Exception:
    """Error that ended the processes, by their last message."""
    if last.get("error") in ERRORS:
        return ERRORS[last["error"]](last["text"])
    if stopping:
        return Stopped("stopped")
    if "error" in last:
        kind = "" if last["error"] == "RuntimeError" else f"{last['error']}: "
        return RuntimeError(kind + last["text"])
    return RuntimeError(f"the {processes} processes of the training ended with exit code {code}; its log says more")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {"OMP_NUM_THREADS": str(torch.get_num_threads()), **kept, "PYTHONPATH": os.pathsep.join(paths)}


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield messages of a growing file; None if there is no more yet."""
    position = 0
    while True:
        if path.is_file():
            with open(path, encoding="utf-8") as file:
                file.seek(position)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    position = file.tell()
                    yield json.loads(line)
        yield None
