"""Who carries out a job: the newest attempt alone may publish, and says in a file that it lives and where it is.

A machine that is cut off, or whose Ray daemon died, can go on computing while its job is tried again elsewhere. Each
attempt therefore writes its own name into the lease of the job, over that of the one before, and an attempt that finds
another's name there ends before it completes a stage. This is as prompt as the file system shows a renamed file.
"""

import json
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import WriteError
from benchmark.files import write_json
from benchmark.ownership import runs_here, this_process
from benchmark.stages import read_manifest

HEARTBEAT = 5.0
"""Seconds between two signs of life."""

SILENCE = 60.0
"""Seconds without a sign of life after which an attempt on another machine is taken to be dead."""


class Superseded(Exception):
    """Another attempt carries out the job now; this one must not publish."""


def lease_path(folder: Path, part: str) -> Path:
    """Lease of a cell's job."""
    return folder / "attempt" / f"{part}.json"


def progress_path(folder: Path, part: str) -> Path:
    """Where the attempt at a cell's job says how far it is, or how it ended if not well."""
    return folder / "attempt" / f"{part}.progress.json"


def read_lease(folder: Path, part: str) -> dict[str, Any] | None:
    """Who holds a cell's job, if anybody does and says so whole."""
    lease = read_manifest(lease_path(folder, part))
    return lease if lease is not None and lease.keys() >= {"host", "boot", "pid", "start", "since", "attempt"} else None


def lives(folder: Path, part: str) -> bool:
    """Whether an attempt holds a cell's job and goes on, as far as can be seen from here."""
    lease = read_lease(folder, part)
    if lease is None:
        return False
    seen = runs_here(lease)
    if seen is not None:
        return seen
    news = read_manifest(progress_path(folder, part)) or {}
    return time.time() - float(news.get("at", lease["since"])) < SILENCE


class Lease:
    """An attempt at a job, which holds it until another does.

    Args:
        folder: Of the cell.
        part: ``train`` or ``evaluate``.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.path, self._progress_path = lease_path(folder, part), progress_path(folder, part)
        self.attempt = uuid.uuid4().hex
        self._news: dict[str, Any] = {}
        self._stage_start = 0.0, 0
        self._lost = ""
        self._ended = threading.Event()
        write_json(self.path, {"attempt": self.attempt, **this_process(), "since": time.time()})
        self._write()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """End an attempt that is known to be no longer the newest; cheap, for every step.

        Raises:
            Superseded: Naming the newest.
        """
        if self._lost:
            raise Superseded(self._lost)

    def confirm(self) -> None:
        """Read the lease, and end the attempt unless it is the newest.

        Raises:
            OSError: If the lease cannot be read, which says nothing of other attempts.
            Superseded: Naming the newest.
        """
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            held = {}
        if held.get("attempt") != self.attempt:
            by = f"by process {held['pid']} on {held['host']}" if held else "elsewhere, and ended"
            self._lost = f"another attempt at this job was started {by}; this one published nothing more"
        self.check()

    def report(self, message: dict[str, Any]) -> None:
        """Take in where the job is, and at what pace, to be written with the next sign of life."""
        now = time.monotonic()
        if message.get("stage") != self._news.get("stage"):
            self._stage_start = now, message["done"]
        since, done = self._stage_start
        rate = (message["done"] - done) / (now - since) if now - since > 1 else None
        self._news = {"loss": None, **message, "rate": rate or None}

    def end(self, result: dict[str, Any]) -> None:
        """Let go of the job; how it ended stays readable unless it ended well."""
        self._ended.set()
        self._thread.join()
        try:
            self.confirm()
        except Superseded:
            return
        if result["status"] == "ok":
            self._progress_path.unlink(missing_ok=True)
        else:
            self._news |= {k: v for k, v in result.items() if k != "job"}
            with suppress(WriteError):  # the disk may be full; whoever waits for the job is told all the same
                self._write()
        self.path.unlink(missing_ok=True)

    def _live(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                self.confirm()
                self._write()
            except Superseded:
                return
            except (OSError, WriteError):  # a full disk or a server that is away; what the job itself writes decides
                continue

    def _write(self) -> None:
        write_json(self._progress_path, {**self._news, "attempt": self.attempt, "at": time.time()})
