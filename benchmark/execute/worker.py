"""The inside of a worker process: it imports once and carries out jobs until told to end."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, Stopped, failure
from benchmark.plan import Job
from benchmark.suite import Protocol

_context: dict[str, Any] = {}


def start(parent: int, slots: Any, messages: Any, stop: Any, threads: int) -> None:
    """Make this process a worker: its own device, few threads, no reaction to Ctrl-C, and no life after its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _context.update(messages=messages, stop=stop, threads=threads)
    signal.signal(signal.SIGTERM, _on_terminate)
    slot = slots.get()
    if slot is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(slot)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    messages.cancel_join_thread()  # or this process would wait for a parent that has stopped reading


def _on_terminate(number: int, frame: Any) -> None:
    """End, unless the signal went to all processes of a run that is stopping: then the job saves its state first."""
    given_up = time.monotonic() + 1
    while not _context["stop"].value:  # the parent may get to it later
        if time.monotonic() > given_up:
            os._exit(128 + number)
        time.sleep(0.01)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # a worker left behind would write beside the next run's


def _prepare() -> None:
    import torch

    torch.set_num_threads(_context["threads"])


def resolve(cells: dict[str, tuple[str, ...]], dry: bool = False) -> dict[str, dict[str, Any]]:
    """Each cell's configuration with all defaults filled in, from its command line.

    Args:
        cells: Command line by name.
        dry: Whether nothing will be run: the files of data sets of known size may then be missing.

    Raises:
        InputError: Naming the cell and what is wrong.
    """
    _prepare()
    import yaml

    from benchmark.cli import build

    resolved = {}
    for name, arguments in cells.items():
        try:
            cli = (_built_dry if dry else build)([*arguments, "--trainer.logger=false"])
        except InputError as error:
            raise InputError(f"cell {name}: {error}") from None
        text = cli.parser.dump(cli.config, skip_link_targets=False, skip_none=False)
        resolved[name] = yaml.safe_load(text)
    return resolved


def _built_dry(arguments: list[str]) -> Any:
    """A CLI whose data stands in, and whose weights are not made where the method can do without."""
    import torch

    from benchmark.cli import build
    from datamodules.base import stand_ins

    with stand_ins():
        try:
            with torch.device("meta"):
                return build(arguments)
        except InputError:  # of the configuration, which then comes again, or of a method that computes with weights
            return build(arguments)


def work(job: Job, protocol: Protocol) -> dict[str, Any]:
    """Carry out a job; what goes wrong comes back as a result, with the traceback in the cell's log."""
    stop = _context["stop"]

    def report(message: dict[str, Any]) -> None:
        _context["messages"].put({"job": job.name, **message})
        if job.part == "evaluate" and stop.value:
            raise KeyboardInterrupt

    with _logged(job.folder / "log"):
        _prepare()
        from benchmark.runner import carry_out

        try:
            if stop.value:
                raise KeyboardInterrupt
            carry_out(job, protocol, report, lambda: bool(stop.value))
        except (Stopped, KeyboardInterrupt):
            return {"job": job.name, "status": "stopped"}
        except Exception as error:
            with contextlib.suppress(OSError):  # the disk may be full
                traceback.print_exc()
            return {"job": job.name, "status": "failed", "error": failure(error)}
    return {"job": job.name, "status": "ok"}


@contextmanager
def _logged(path: Path) -> Any:
    """Send this process's standard output and error to the end of a file, or nowhere if it cannot be written."""
    sys.stdout.flush(), sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "a", encoding="utf-8")  # noqa: SIM115
    except OSError:  # the job says why when it writes there itself
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
