"""Progress files of a run's jobs, for readers in other processes and on other machines."""

import time
from collections.abc import Iterable
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

from benchmark.errors import WriteError
from benchmark.suite.jobs import Job
from benchmark.system.files import read_manifest, write_json
from benchmark.system.machine import runs_here, this_process

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""
SILENCE = 60.0
"""Seconds without a heartbeat after which an attempt on another machine counts as dead."""
ENDS = ("failed", "stopped")
"""States whose progress files are kept after the job."""
TEXTS = {"host": True, "boot": False, "start": False, "stage": False, "error": False, "status": False}
NUMBERS = {"pid": True, "since": True, "at": True, "done": False, "total": False, "rate": False}
"""Fields of a progress file, and whether each is required."""


def progress_path(folder: Path, part: str) -> Path:
    """Progress file of a cell's job; kept if the job fails or is stopped."""
    return folder / "attempt" / f"{part}.progress.json"


def read_progress(folder: Path, part: str) -> dict[str, Any] | None:
    """A job's progress file; None if there is none, or it is damaged.

    ``host``, ``boot``, ``pid`` and ``start`` identify the process that wrote it, ``since`` and ``at`` are the times of
    its start and last heartbeat in seconds, ``stage``, ``done``, ``total`` and ``rate`` (1/s) its progress, ``status``
    and ``error`` how it ended.
    """
    news = read_manifest(progress_path(folder, part))
    if news is None or news.get("status") not in (None, *ENDS):
        return None
    whole = all(_has(news, name, needed, str) for name, needed in TEXTS.items())
    whole = whole and all(_has(news, name, needed, Real) for name, needed in NUMBERS.items())
    return news if whole else None


def _has(news: dict[str, Any], name: str, needed: bool, kind: type) -> bool:
    value = news.get(name)
    if value is None:
        return not needed
    return isinstance(value, kind) and (kind is str or 0 <= value < 1e15)


def is_alive(news: dict[str, Any] | None) -> bool:
    """Tell whether the attempt that wrote a progress file still runs, as far as this machine can tell."""
    if news is None or "status" in news:
        return False
    here = runs_here(news)
    return time.time() - news["at"] < SILENCE if here is None else here


class Progress:
    """Progress file of one attempt at a job.

    Args:
        folder: Folder of the cell.
        part: ``train`` or ``evaluate``.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.path = progress_path(folder, part)
        self._news: dict[str, Any] = {**this_process(), "since": time.time()}
        self._stage_start = 0.0, 0
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def report(self, stage: str, done: int, total: int) -> None:
        """Note how far the job is, and its pace, for the next heartbeat."""
        now = time.monotonic()
        if stage != self._news.get("stage"):
            self._stage_start = now, done
        since, first = self._stage_start
        rate = (done - first) / (now - since) if now - since > 1 else None
        told = {"stage": stage, "done": done, "total": total, "rate": rate or None}
        self._news = {**self._news, **told}  # replaced as a whole, for another thread

    def write(self) -> None:
        """Write the file with a heartbeat, unless its folder was deleted.

        Raises:
            OSError: If the disk cannot be written.
            WriteError: If it is full or closed.
        """
        if self.path.parent.is_dir():  # a deleted folder stays deleted
            write_json(self.path, {**self._news, "at": time.time()})

    def end(self, result: dict[str, Any]) -> None:
        """Record how the job ended; delete the file if it ended well."""
        with suppress(OSError, WriteError):  # the disk may be full; the result is returned all the same
            if result["status"] == "ok":
                self.path.unlink(missing_ok=True)
            else:
                self._news = {**self._news, **{k: result[k] for k in ("status", "error") if k in result}}
                self.write()


class Journal:
    """Progress files of jobs on this machine, written by the process that starts them.

    Args:
        jobs: The jobs.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._running: dict[str, Progress] = {}
        self._written = 0.0

    def update(self, message: dict[str, Any]) -> None:
        """Process a message of the engine."""
        name, event = message["job"], message.get("event")
        if event == "started" and name in self._jobs:
            job = self._jobs[name]
            with suppress(OSError, WriteError):  # the job itself reports the error when it writes there
                self._running[name] = Progress(job.folder, job.part)
                self._running[name].write()
        elif name in self._running and event is not None:
            self._running.pop(name).end(message)
        elif name in self._running:
            self._running[name].report(message["stage"], message["done"], message["total"])

    def beat(self) -> None:
        """Write a heartbeat of each running job if the last is ``HEARTBEAT`` seconds old."""
        if time.monotonic() - self._written < HEARTBEAT:
            return
        self._written = time.monotonic()
        for progress in self._running.values():
            with suppress(OSError, WriteError):
                progress.write()
