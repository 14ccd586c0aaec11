"""Worker process: imports the heavy libraries once and carries out jobs."""

import contextlib
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import Stopped, WriteError, failure, one_line, traced
from benchmark.execute.lease import Lease, NoLease, Superseded
from benchmark.screen import protect
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import Suite
from benchmark.system.machine import FOREIGN, end_with

_context: dict[str, Any] = {}


def start(parent: int, gpus: str | None, messages: Any, stop: Any, threads: int) -> None:
    """Make this process a worker of a pool that ignores Ctrl-C and has its own device."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become(parent, messages, stop, threads)
    signal.signal(signal.SIGTERM, _on_terminate)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    messages.cancel_join_thread()  # or this process would wait for a parent that no longer reads


def become(parent: int, messages: Any, stop: Any, threads: int) -> None:
    """Make this process a worker: few threads, no variables of another launch, ended with its parent.

    Args:
        parent: Identifier of the process that started this one.
        messages: Its ``put`` receives the messages of jobs.
        stop: Its ``value`` is true when jobs must save their state and end.
        threads: Threads of the numeric libraries.
    """
    protect()
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    end_with(parent)
    _context.update(messages=messages, stop=stop, threads=threads)


def _on_terminate(number: int, frame: Any) -> None:
    """End this process, unless the run is stopping: then the job saves its state first."""
    given_up = time.monotonic() + 1
    while not _context["stop"].value:  # the parent may set it a little later
        if time.monotonic() > given_up:
            os._exit(128 + number)
        time.sleep(0.01)


def _prepare() -> None:
    import torch

    torch.set_num_threads(_context["threads"])


def resolve(cells: dict[str, tuple[str, ...]], dry: bool = False, here: bool = True) -> dict[str, dict[str, Any]]:
    """Resolve configurations in this process; see ``benchmark.training.build``."""
    _prepare()
    from benchmark.training import build

    return build.resolve(cells, dry, here)


def count(suite: Suite, names: list[str]) -> dict[str, Any]:
    """Count costs in this process; see ``benchmark.cost.counting``."""
    _prepare()
    from benchmark.cost import counting

    return counting.count(suite, names)


def work(job: Job, protocol: Protocol, leased: bool) -> dict[str, Any]:
    """Carry out a job; errors are returned as a result, with the traceback in the cell's log.

    Args:
        job: The job; its folder is absolute.
        protocol: Protocol of the measurements.
        leased: Whether another machine may try the job too.
    """
    with _logged(job.folder / "log"):
        try:
            lease = Lease(job.folder, job.part) if leased else NoLease()
        except WriteError as error:
            return {"job": job.name, "status": "failed", "error": failure(error)}
        result = {"job": job.name, **_outcome(job, protocol, lease)}
        lease.end(result)
        return result


def _outcome(job: Job, protocol: Protocol, lease: Lease | NoLease) -> dict[str, Any]:
    """Result of an attempt at a job: ``status`` and, for a failure, ``error``."""
    stop = _context["stop"]

    def report(stage: str, done: int, total: int, loss: float | None = None) -> None:
        lease.check()
        lease.report(stage, done, total)
        _context["messages"].put({"job": job.name, "stage": stage, "done": done, "total": total, "loss": loss})
        if stage != "train" and stop.value:  # a training saves its state itself
            raise KeyboardInterrupt

    def stopping() -> bool:
        lease.check()
        return bool(stop.value)

    _prepare()
    from benchmark.execute.job import carry_out

    try:
        if stop.value:
            raise KeyboardInterrupt
        carry_out(job, protocol, report, stopping, lease.confirm)
    except (Stopped, KeyboardInterrupt):
        return {"status": "stopped"}
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be full
            print(traced(error), file=sys.stderr)
        return {"status": "failed", "error": one_line(error) if isinstance(error, Superseded) else failure(error)}
    return {"status": "ok"}


@contextmanager
def _logged(path: Path) -> Any:
    """Send this process's standard output and error to the end of a file, or nowhere if it cannot be written."""
    sys.stdout.flush(), sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "a", encoding="utf-8")  # noqa: SIM115
    except OSError:  # the job reports the error when it writes there
        log = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with log as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the disk may be full
                sys.stdout.flush(), sys.stderr.flush()
            os.dup2(kept[0], 1), os.dup2(kept[1], 2)
            os.close(kept[0]), os.close(kept[1])
