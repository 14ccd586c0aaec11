"""Lease of a job: only its holder may record results; a progress file shows heartbeats.

A machine that is cut off, or whose Ray daemon died, can go on computing while its job is tried again elsewhere. Each
attempt therefore writes its own name into the lease of the job and replaces that of the one before. An attempt that
finds another name there ends before it completes a stage, as soon as the file system shows the renamed file. Jobs of
one machine need no lease: the lock of the run's folder excludes other runs, and workers end with the run.
"""

import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import WriteError, shown
from benchmark.execute import journal
from benchmark.execute.journal import Progress
from benchmark.system.files import read_json, write_json
from benchmark.system.machine import this_process

PAUSE = 1.0
"""Seconds between two reads of a lease that seems lost: a file server may show a rename late."""


class Superseded(Exception):
    """Loss of a job's lease: this attempt must not record results."""


def lease_path(folder: Path, part: str) -> Path:
    """Lease of a cell's job."""
    return folder / "attempt" / f"{part}.json"


def clear(folder: Path, part: str) -> None:
    """Delete files of earlier attempts at a cell's job; one that still runs elsewhere ends without its lease."""
    with suppress(OSError):  # later writes report the error
        lease_path(folder, part).unlink(missing_ok=True)
        journal.progress_path(folder, part).unlink(missing_ok=True)


class NoLease:
    """Stand-in for a lease where no other machine can try the job."""

    def check(self) -> None:
        """Nothing can be lost."""

    def confirm(self) -> None:
        """Nothing can be lost."""

    def report(self, stage: str, done: int, total: int) -> None:
        """The process that started the job writes its progress."""

    def end(self, result: dict[str, Any]) -> None:
        """Nothing is held."""


class Lease:
    """Lease of an attempt, held until another attempt starts.

    Args:
        folder: Folder of the cell; absolute.
        part: ``train`` or ``evaluate``.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.path, self._folder = lease_path(folder, part), folder
        self.attempt = uuid.uuid4().hex
        self._lost = ""
        self._ended = threading.Event()
        write_json(self.path, {"attempt": self.attempt, **this_process()})
        self._progress = Progress(folder, part)
        self._progress.write()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """End an attempt that has lost its lease; cheap enough for every step.

        Raises:
            Superseded: Naming the reason.
        """
        if self._lost:
            raise Superseded(self._lost)

    def confirm(self) -> None:
        """Read the lease, twice if it seems lost, and end the attempt unless it holds it.

        Raises:
            OSError: If the lease cannot be read.
            Superseded: Naming the reason.
        """
        if self._reason():
            time.sleep(PAUSE)
            self._lost = self._reason() or self._lost
        self.check()

    def _reason(self) -> str:
        """Reason why this attempt lost the lease; empty while it holds it."""
        try:
            held = read_json(self.path)
        except FileNotFoundError:
            if not self._folder.is_dir():
                return f"the run's folder is gone: {self._folder} was deleted or moved while the job ran"
            return f"{self.path} is gone: another attempt at this job has ended, or it was deleted"
        except ValueError:
            held = None
        if not isinstance(held, dict) or not isinstance(held.get("attempt"), str):
            return f"{self.path} is damaged: it does not say whether another attempt at this job was started"
        if held["attempt"] == self.attempt:
            return ""
        by = shown(f"process {held.get('pid', '?')} on {held.get('host', '?')}", 100)
        return f"another attempt at this job was started by {by}; this one published nothing more"

    def report(self, stage: str, done: int, total: int) -> None:
        """Note how far the job is, for the next heartbeat."""
        self._progress.report(stage, done, total)

    def end(self, result: dict[str, Any]) -> None:
        """Release the lease; keep the progress file unless the job ended well."""
        self._ended.set()
        self._thread.join()
        try:
            self.confirm()
        except (Superseded, OSError):
            return
        self._progress.end(result)
        self.path.unlink(missing_ok=True)

    def _live(self) -> None:
        while not self._ended.wait(journal.HEARTBEAT):
            try:
                self.confirm()
                self._progress.write()
            except Superseded:
                return
            except (OSError, WriteError):  # a full disk or an absent server; writes of the job itself decide
                continue
